"""The page of results: what was done, on what, and a table a row, whether its ratios are good or bad."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks.speed import arithmetic
from benchmarks.speed.harness import Measurement
from benchmarks.speed.row import Growth, Row

Arms = Mapping[str, Sequence[Measurement]]
"""Name of an arm -> its measurements, in the order of the rounds."""


INTRODUCTION = """# Side by side

Written by `make bench`, never by hand. Each arm runs in a fresh process, by turns (A B A B). A ratio compares two
arms of one round; what is told is the median of the rounds, and in brackets the least and the most. Above 1 an arm is
faster than the first one of its table. Memory is the most that the whole process held, libraries included. *Others*
is how many cores foreign processes kept busy meanwhile: near 0 the clock on the wall can be trusted, otherwise look
at core-seconds, processor time of all threads, which they change less. Losses are those of 16 rows that nothing
learned from, after training, in nats a label, computed for all arms by transformers in float32. A share of the rate
of products sets the operations of the matrices that training needs (no padding, no scores of prompts, no attention)
against the fastest product of two large matrices in the same process: 100 % is what no tool can pass.
"""


def page(rows: Iterable[tuple[Row, Arms]], facts: Mapping[str, str]) -> str:
    """Return the page; rows without measurements are left out.

    Args:
        rows: In the order they are told.
        facts: What holds for all of them: processor, versions.
    """
    parts = [
        INTRODUCTION,
        table(("", ""), facts.items()),
    ]
    for row, arms in rows:
        if arms:
            parts.append(section(row, arms))
    return "\n".join(parts)


def section(row: Row, arms: Arms) -> str:
    """Return what is told of one row."""
    rounds = max(len(measurements) for measurements in arms.values())
    aim = f" Aim: {row.aim}" if row.aim else ""
    said = f"## {row.title}\n\n{row.work}{aim} {rounds} round{'s' * (rounds > 1)} (`make bench ROWS={row.name}`).\n"
    if row.growth is not None:
        return "\n".join([said, f"![{row.title}]({row.name}.png)\n", grown(row.growth, arms)])
    return "\n".join([said, compared(row, arms), *notes(arms)])


def compared(row: Row, arms: Arms) -> str:
    """Return the table of a row; columns that no arm fills are left out."""
    first = arms.get(row.arms[0].name, ())
    outputs = [one.outcome.output for measurements in arms.values() for one in measurements if one.outcome.output]
    columns: dict[str, Callable[[Sequence[Measurement]], str]] = {
        "seconds": lambda found: _number(arithmetic.middle(found, arithmetic.seconds)),
        "core-seconds": lambda found: _number(arithmetic.middle(found, lambda one: one.outcome.processor_seconds)),
        f"{row.unit} a second": lambda found: _number(arithmetic.middle(found, arithmetic.speed)) if row.unit else "",
        "times as fast": lambda found: _ratio(arithmetic.ratio(found, first, arithmetic.speed)),
        "by core-seconds": lambda found: _ratio(arithmetic.ratio(found, first, arithmetic.processor_speed)),
        "peak memory": lambda found: _megabytes(arithmetic.middle(found, arithmetic.peak)),
        "above imports": _above_imports,
        "of the first": lambda found: _ratio(arithmetic.ratio(found, first, arithmetic.peak)),
        "loss": lambda found: _loss(found, first),
        "output": lambda found: _output(found, outputs),
        "others": lambda found: f"{arithmetic.middle(found, lambda one: one.foreign):.2f}",
    }
    cells = {name: [tell(found) for found in arms.values()] for name, tell in columns.items()}
    kept = {name: column for name, column in cells.items() if any(column)}
    lines = zip(arms, *kept.values(), strict=True)
    return table(("arm", *kept), lines)


def grown(growth: Growth, arms: Arms) -> str:
    """Return the table of a row of growth: a line for each value, the peer beside lorakit."""
    lines = []
    for value in growth.values:
        peer, own = (arms.get(f"{line} · {value}", ()) for line in growth.lines)
        if peer and own:
            costs = [_number(arithmetic.middle(found, arithmetic.seconds)) for found in (peer, own)]
            sizes = [_megabytes(arithmetic.middle(found, arithmetic.peak)) for found in (peer, own)]
            faster, smaller = (arithmetic.ratio(own, peer, number) for number in (arithmetic.speed, arithmetic.peak))
            lines.append((f"{value:,}", *costs, _ratio(faster), *sizes, _ratio(smaller)))
    head = [f"{line}, {what}" for what in ("seconds", "memory") for line in growth.lines]
    return table((growth.axis, *head[:2], "times as fast", *head[2:], "of the memory"), lines)


def notes(arms: Arms) -> list[str]:
    """Return what arms said of themselves."""
    said = {arm: found[-1].outcome.note for arm, found in arms.items()}
    return [*(f"- {arm}: {note}" for arm, note in said.items() if note), ""] if any(said.values()) else []


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |\n" for row in rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _loss(found: Sequence[Measurement], first: Sequence[Measurement]) -> str:
    """Return the loss of the last round, and how far it is from that of the first arm."""
    own = found[-1].outcome.loss
    base = first[-1].outcome.loss if first else None
    if own is None or base is None or found is first:
        return "" if own is None else f"{own:.4f}"
    return f"{own:.4f} ({own / base - 1:+.2%})"


def _ratio(found: arithmetic.Ratio | None) -> str:
    if found is None:
        return ""
    if found.least == found.most:
        return f"{found.median:.2f}"
    return f"{found.median:.2f} ({found.least:.2f}–{found.most:.2f})"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"


def _above_imports(found: Sequence[Measurement]) -> str:
    if any(one.outcome.imported_bytes is None for one in found):
        return ""
    return _megabytes(arithmetic.middle(found, lambda one: one.outcome.peak_bytes - (one.outcome.imported_bytes or 0)))


def _output(found: Sequence[Measurement], outputs: Sequence[str]) -> str:
    """Return whether an arm made what the first one that makes something made."""
    own = {one.outcome.output for one in found}
    if own == {None} or not outputs:
        return ""
    return "the same" if own == {outputs[0]} else "another"
