"""Predictions as people read them, and as lines of a file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lorakit.cli import screen
from lorakit.errors import DataError

if TYPE_CHECKING:
    from lorakit.types import Row
    from lorakit.workflows.predicting import Prediction

KEY = "prediction"
"""Name of the column that a row of JSON gets."""

_HIDDEN = ("top", "tokens", "finish_reason", "log_probability", "masks", "entities")
"""Keys of a prediction that get no column of their own in CSV: lists beside what they come to, and counts."""


def shown(prediction: Prediction) -> str:
    """Return lines for people, a newline at the end of each."""
    if "masks" in prediction:
        return _masks(prediction)
    if "entities" in prediction:
        rows = [[one["text"], one["label"], _span(one), _share(one)] for one in prediction["entities"]]
        return _table(rows) if rows else "no entities\n"
    if "answer" in prediction:
        return _table([[one["answer"] or "(no answer)", _span(one), _share(one)] for one in prediction["top"]])
    if "labels" in prediction:
        chosen = prediction["labels"]
        return _table([[one["label"], _share(one), "yes" * (one["label"] in chosen)] for one in prediction["top"]])
    if "label" in prediction:
        return _table([[one["label"], _share(one)] for one in prediction["top"]])
    if "is_next" in prediction:
        return _table([["follows", _share(prediction), "yes" if prediction["is_next"] else "no"]])
    return f"{prediction['score']:.6g}\n" if "score" in prediction else f"{prediction['text']}\n"


def heading(row: Row) -> str:
    """Return a line that names an input among several."""
    text = " · ".join(value if isinstance(value, str) else json.dumps(value) for value in row.fields.values())
    text = " ".join(text.split())
    return f"{row.where}: {text[:77]}{'…' * (len(text) > 77)}\n"


def json_line(fields: Mapping[str, Any], prediction: Prediction) -> str:
    """Return one line of JSON: the columns of the row, and its prediction."""
    return json.dumps({**fields, KEY: prediction}, ensure_ascii=False, default=str)


class CsvLines:
    """Lines of a CSV file: the columns of the input, and what is predicted, each its own column."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._predicted: list[str] | None = None

    def lines(self, fields: Mapping[str, Any], prediction: Prediction) -> list[str]:
        """Return the line of a row; before the first one, the names of the columns."""
        found = _flat(prediction)
        begun = self._predicted is not None
        self._predicted = self._predicted or list(found)
        line = _csv([*(_cell(fields.get(name)) for name in self._columns), *(found[name] for name in self._predicted)])
        return [line] if begun else [_csv([*self._columns, *self._predicted]), line]


def check_columns(columns: Sequence[str], as_csv: bool) -> None:
    """Refuse columns whose values a prediction would replace.

    Raises:
        DataError: Names the column.
    """
    taken = [name for name in columns if (name.startswith("predicted_") if as_csv else name == KEY)]
    if taken:
        raise DataError(f"the column {taken[0]!r} of the input would stand beside the predictions'; rename it.")


def _masks(prediction: Prediction) -> str:
    blocks = []
    for number, mask in enumerate(prediction["masks"], start=1):
        title = f"mask {number}, characters {_span(mask)}\n" if len(prediction["masks"]) > 1 else ""
        blocks.append(title + _table([[one["word"], _share(one)] for one in mask["words"]]))
    return "\n".join([*blocks, f"{prediction['text']}\n"])


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return columns two spaces apart, as wide as their widest cell on a terminal."""
    from rich.cells import cell_len

    cells = [[screen.safe(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "".join(f"{line}\n" for line in lines)


def _share(one: Mapping[str, Any]) -> str:
    return f"{one['probability']:.3f}"


def _span(one: Mapping[str, Any]) -> str:
    return "" if one.get("start") is None else f"{one['start']}–{one['end']}"


def _flat(prediction: Prediction) -> dict[str, str]:
    """Return the columns of a prediction in CSV."""
    found: dict[str, str] = {}
    if "entities" in prediction:
        found["predicted_entities"] = json.dumps(prediction["entities"], ensure_ascii=False)
    if "masks" in prediction:
        words = [[one["word"] for one in mask["words"]] for mask in prediction["masks"]]
        found["predicted_words"] = json.dumps(words, ensure_ascii=False)
    for name, value in prediction.items():
        if name not in _HIDDEN:
            found[f"predicted_{name}"] = _joined(name, value)
    return found


def _joined(name: str, value: Any) -> str:
    """Return one cell: labels are joined as they are read, by ``|``, tags by spaces."""
    if isinstance(value, list):
        return {"labels": "|", "tags": " "}.get(name, " ").join(map(str, value))
    return _cell(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _csv(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()
