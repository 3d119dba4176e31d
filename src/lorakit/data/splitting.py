"""An evaluation share that shares no prompt with the training rows, and seeded samples."""

from __future__ import annotations

import hashlib
import json
import random
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence

from lorakit.errors import DataError
from lorakit.types import Format, Row

FEW_DOCUMENTS = 20
"""Below this many documents each is cut, so that all are in both parts."""


def split(rows: Sequence[Row], format: Format, share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Part canonical rows into training and evaluation rows; both keep reading order.

    Rows of one prompt (of a chat: everything before the first answer; of text: the document; of pairs of texts: the
    first; of questions: the context) stay together. Groups are ordered by a hash of the seed and the prompt, which does
    not depend on the order of the rows, and are taken as long as they fit into the share. Rows with one label each are
    parted label by label, so that each keeps its share. The last rows of a label or tag stay in training, where other
    rows can be taken. Of fewer than 20 documents, the last share of each is cut off at the end of a line, or of a word
    where no line ends near.

    Args:
        rows: Canonical rows.
        format: Their format.
        share: Part of the rows to evaluate on, in (0, 1).
        seed: Draws the groups.

    Returns:
        Training rows and evaluation rows; neither is empty.

    Raises:
        DataError: There is one group alone, or one document that cannot be cut.
    """
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(_together(row, format), []).append(number)
    if format.name == "text" and len(groups) < FEW_DOCUMENTS:
        return _cut_documents(rows, share)
    if len(groups) < 2:
        what = {"labelled": "text", "source_target": "source", "extractive": "context", "tagged": "tokens"}
        same = f"all {len(rows):,} rows have the same {what.get(format.name, 'prompt')}"
        raise DataError(
            f"{same if len(rows) > 1 else 'there is one row alone'}, so no share can be kept for evaluation. Give an "
            "evaluation file with --set data.eval=FILE."
        )
    ordered = [groups[prompt] for prompt in sorted(groups, key=lambda prompt: _hash(seed, prompt))]
    strata: dict[str, list[list[int]]] = {}
    for group in ordered:
        strata.setdefault(rows[group[0]].fields.get("label", ""), []).append(group)
    labels = [_labels(row) for row in rows]
    left = Counter(label for each in labels for label in each)
    taken: set[int] = set()
    passed = 0
    for stratum in strata.values():
        # Rounding the sum, not each label's share, keeps the whole share where labels are many and rare.
        passed += sum(map(len, stratum))
        taken |= _taken(stratum[:-1], max(1, round(share * passed)) - len(taken), labels, left)
    if not taken:
        smallest = min(ordered, key=len)
        taken.update(smallest)
    training = [row for number, row in enumerate(rows) if number not in taken]
    evaluation = [row for number, row in enumerate(rows) if number in taken]
    return training, evaluation


def _taken(groups: Sequence[list[int]], wanted: int, labels: Sequence[Collection[str]], left: Counter[str]) -> set[int]:
    """Return at most `wanted` rows to evaluate on, and take their labels off those that are `left` to learn from."""
    taken: set[int] = set()
    for group in groups:
        lost = Counter(label for number in group for label in labels[number])
        if len(taken) + len(group) <= wanted and all(left[label] > count for label, count in lost.items()):
            taken.update(group)
            left.subtract(lost)
    return taken


def _labels(row: Row) -> Collection[str]:
    """Return the names that a model must have seen to predict them."""
    if "label" in row.fields:
        return (row.fields["label"],)
    names: list[str] = row.fields.get("labels") or row.fields.get("tags") or []
    return set(names)


def sample(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Return a seeded sample of `count` rows in reading order; all rows where there are no more."""
    if count >= len(rows):
        return list(rows)
    return [rows[number] for number in sorted(random.Random(seed).sample(range(len(rows)), count))]


def sample_to_learn(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Return a sample like `sample` in which no label and no tag is lost that `count` rows have room for.

    Rows whose labels other rows of the sample have too make room, one by one, for rows with labels that it lacks.
    """
    if count >= len(rows):
        return list(rows)
    drawn = random.Random(seed).sample(range(len(rows)), count)
    labels = [_labels(row) for row in rows]
    held = Counter(label for number in drawn for label in labels[number])
    for number, names in enumerate(labels):
        if all(held[name] for name in names):
            continue
        spare = next((place for place, one in enumerate(drawn) if all(held[name] > 1 for name in labels[one])), None)
        if spare is None:
            break
        held.subtract(labels[drawn[spare]])
        held.update(names)
        drawn[spare] = number
    return [rows[number] for number in sorted(drawn)]


def prompt_key(row: Row, format: Format) -> str:
    """Return what two rows with the same prompt have in common: composed (NFC), without white space at the ends."""
    fields = row.fields
    match format.name:
        case "text":
            words = fields["text"]
        case "prompt_completion":
            words = fields["prompt"]
        case "source_target":
            words = fields["source"]
        case "labelled":
            words = _joined([fields["text"].strip(), fields.get("text_pair", "").strip()])
        case "tagged":
            words = _joined(fields["tokens"])
        case "extractive":
            words = _joined([fields["question"].strip(), fields["context"].strip()])
        case "chat":
            turns = fields["messages"]
            answer = next(number for number, turn in enumerate(turns) if turn["role"] == "assistant")
            words = _joined([(turn["role"], turn["content"].strip()) for turn in turns[:answer]])
    return unicodedata.normalize("NFC", words).strip()


def _together(row: Row, format: Format) -> str:
    """Return what rows that stay on one side have in common."""
    shared = {"labelled": "text", "extractive": "context"}.get(format.name)
    return unicodedata.normalize("NFC", row.fields[shared]).strip() if shared else prompt_key(row, format)


def _joined(parts: Sequence[object]) -> str:
    return json.dumps(parts, ensure_ascii=False)


def _hash(seed: int, prompt: str) -> bytes:
    return hashlib.sha256(f"{seed} {prompt}".encode()).digest()


def _cut_documents(rows: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    training, evaluation = [], []
    for row in rows:
        text: str = row.fields["text"]
        cut = _cut_place(text, share)
        if cut is None:
            training.append(row)
            continue
        training.append(Row({"text": text[:cut].rstrip()}, row.source, row.line))
        start = len(text) - len(text[cut:].lstrip())
        evaluation.append(Row({"text": text[start:].rstrip()}, row.source, row.line + text.count("\n", 0, start)))
    if not evaluation:
        raise DataError(
            "the text is too short to keep a share of it for evaluation. "
            "Give more text, or an evaluation file with --set data.eval=FILE."
        )
    return training, evaluation


def _cut_place(text: str, share: float) -> int | None:
    """Return where the last share of `text` begins, with words on both sides, or None."""
    wanted = round(len(text) * (1 - share))
    for boundary, furthest in (("\n", share * len(text) / 2), (" ", len(text))):
        places = (text.rfind(boundary, 0, wanted), text.find(boundary, wanted))
        inside = [place for place in places if text[: max(place, 0)].strip() and text[place:].strip()]
        near = [place for place in inside if abs(place - wanted) <= furthest]
        if near:
            return min(near, key=lambda place: abs(place - wanted))
    return None
