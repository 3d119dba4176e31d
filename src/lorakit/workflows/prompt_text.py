"""Prompts and their text: whole characters, composed where a training composed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorakit.data.formats import in_nfc
from lorakit.errors import LorakitError

Message = Mapping[str, str]
Prompt = str | Sequence[Message]
"""Text, or a conversation of messages with `role` and `content` that waits for the assistant."""


def composed(prompt: Prompt) -> Prompt:
    """Return a text, or each text of a conversation, with composed letters (Unicode NFC)."""
    if isinstance(prompt, str):
        return str(in_nfc(prompt))
    return [in_nfc(dict(message)) for message in prompt]


def check_unicode(text: str, place: str = "the prompt") -> None:
    """Raise LorakitError for half of a character pair, which a command line can hold; `place` is what messages say."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise LorakitError(
            f"{place} holds half of a character pair (U+{ord(text[error.start]):04X} at character "
            f"{error.start + 1}), which is no text; remove it or write the whole character."
        ) from None
