"""What a chat must be: turns in order, each with a known role and some text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorakit.data.fields import value_of
from lorakit.errors import DataError
from lorakit.types import Format, Row

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
}
_READ_KEYS = {"role", "content", "from", "value"}
_UNREAD_LAST = (
    "the chat ends in a turn that is not the assistant's; that turn is left out, as nothing after it is learned"
)


def canonical_chat(row: Row, format: Format) -> tuple[dict[str, Any], list[str]]:
    """Return ``{"messages": [{"role": ..., "content": ...}, ...]}`` and remarks to be counted.

    A chat may begin with one system turn; then user and assistant turns alternate, the user's first. Turns are written
    with ``role`` and ``content``, or with ``from`` and ``value`` (ShareGPT), where human is the user and gpt the
    assistant.

    Raises:
        DataError: It is not so; says which turn, from 1.
    """
    (column,) = format.columns["messages"]
    turns = value_of(row.fields, column)
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{column!r} is {'an empty list' if turns == [] else 'no list of turns'}")
    messages = [_message(turn, number) for number, turn in enumerate(turns, start=1)]
    roles = [message["role"] for message in messages]
    if "system" in roles[1:]:
        raise DataError(f"turn {roles.index('system', 1) + 1} is a system turn, which may only be the first")
    first = 1 if roles[0] == "system" else 0
    if "assistant" not in roles:
        raise DataError("there is no assistant turn, so nothing is learned")
    if roles[first] == "assistant":
        raise DataError(f"turn {first + 1} is the assistant's, but the user begins")
    for number in range(first + 1, len(roles)):
        if roles[number] == roles[number - 1]:
            raise DataError(f"turns {number} and {number + 1} are both the {roles[number]}'s")
    more = sorted({key for turn in turns for key in turn} - _READ_KEYS)
    remarks = (
        [f"the chat has turns that also hold {', '.join(map(repr, more[:5]))}, which nothing reads"] if more else []
    )
    if roles[-1] != "assistant":
        messages.pop()
        remarks.append(_UNREAD_LAST)
    return {"messages": messages}, remarks


def _message(turn: Any, number: int) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise DataError(f"turn {number} is no object with 'role' and 'content'")
    written = ("from", "value") if "from" in turn or "value" in turn else ("role", "content")
    role, content = (turn.get(key) for key in written)
    if turn.get("tool_calls") or turn.get("function_call"):
        raise DataError(f"turn {number} holds tool calls, which are not read")
    if not isinstance(role, str) or role not in _ROLES:
        raise DataError(f"turn {number} has the role {role!r}; known are {', '.join(_ROLES)}")
    if not isinstance(content, str):
        raise DataError(f"turn {number}: {written[1]!r} is {'null or missing' if content is None else 'not text'}")
    if not content.strip():
        raise DataError(f"turn {number}: {written[1]!r} is empty")
    return {"role": _ROLES[role], "content": content}
