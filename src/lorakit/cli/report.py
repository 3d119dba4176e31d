"""What `lorakit train` shows before the first step and after the last."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from lorakit.cli.layouts import end, fitting, lines, stacked
from lorakit.cli.screen import ACCENT, emit, safe, show, tell, terminal_width
from lorakit.data.readers.faults import counted

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lorakit.workflows.training import Prepared, TrainResult


def show_dry_run(prepared: Prepared) -> None:
    """Print, as a result, the resolved recipe with the origin of every value, and what would happen."""
    from lorakit.recipe import resolved_yaml

    emit(f"{resolved_yaml(prepared.loaded)}\n")
    show(*_start(prepared, terminal_width(sys.stdout)))


def show_start(prepared: Prepared) -> None:
    """Print what is about to happen."""
    tell(*_start(prepared, terminal_width(sys.stderr)))


def _start(prepared: Prepared, width: int | None) -> Iterator[RenderableType]:
    """Yield what is about to happen: rows, model, objective, method, speed; and every count that is not plain.

    Args:
        prepared: The run.
        width: Columns of the terminal; None: no edge.
    """
    rows, built, recipe = prepared.rows, prepared.built, prepared.loaded.recipe
    report, family = rows.report, rows.checkpoint.family
    facts = _facts()
    facts.add_row("rows", _rows_line(prepared))
    blocks = getattr(built.model.config, "num_hidden_layers", 0)
    positions = f" · {rows.checkpoint.max_positions:,} positions" if rows.checkpoint.max_positions else ""
    facts.add_row(
        "model",
        f"{rows.checkpoint.identity} · {family.model_type} · {_count(built.base_parameters)} parameters · "
        f"{counted(blocks, 'block')}{positions}",
    )
    facts.add_row(rows.objective.name, _objective_line(prepared))
    facts.add_row(recipe.method.name, _method_line(prepared))
    facts.add_row("speed", _speed_line(prepared))
    facts.add_row(
        "steps",
        f"{prepared.total_steps:,} of {_step_size(prepared)} · learning rate {recipe.learning_rate:g}, "
        f"{recipe.optim.schedule} after {recipe.optim.warmup:.0%} warm-up · {prepared.processes} "
        f"process{'es' * (prepared.processes > 1)} on {prepared.device}",
    )
    yield facts
    for note in [*report.notes, *_new_weights(prepared), *built.trainable.notes]:
        yield Text(safe(f"  {note}"), style="dim")
    heading, *kinds = fitting(width, learning_layouts(built.trainable.summary, built.base_parameters))
    yield Text(safe(heading), style="dim")
    for line in kinds:
        yield Text(safe(line))


def show_end(result: TrainResult) -> None:
    """Print what the run came to, and the next command."""
    state, finished, prepared = result.state, result.finished, result.prepared
    facts = _facts()
    minutes, seconds = divmod(round(state.seconds), 60)
    kept = f"step {state.best_step:,} kept"
    stopped = (
        f" · answers that stop {finished.stopped / finished.answers:.1%} of {finished.answers}"
        if finished.answers
        else ""
    )
    equal = "equal ✓" if finished.difference == 0 else f"within {finished.difference:.0e} ✓"
    facts.add_row(
        f"done in {minutes} m {seconds:02} s",
        f"eval loss {state.first_loss:.3f} → {state.best_loss:.3f} ({kept}){_quality(result)}"
        f"{stopped} · reloaded and {equal}",
    )
    width = getattr(prepared.loaded.recipe.method, "quantize_base", None)
    if width is not None:
        as_is = "not measured, it does not fit" if finished.loss_as_is is None else f"{finished.loss_as_is:.3f}"
        facts.add_row(
            "base", f"in {width} while training; eval loss over the base as it is, as it will be used: {as_is}"
        )
    advice = f" {result.verdict.advice}" if result.verdict.advice else ""
    facts.add_row("overfitting", f"{result.verdict.sentence}.{advice}")
    name = "model" if prepared.loaded.recipe.method.name == "full" else "adapter"
    facts.add_row(
        "saved",
        f"{result.folder} · {name} {_bytes(finished.weights_bytes)}, the base is {_bytes(finished.base_bytes)}",
    )
    facts.add_row("next", Text(_next_command(result), style=ACCENT))
    tell("", facts)


def _quality(result: TrainResult) -> str:
    """Return what the best evaluation measured besides its loss."""
    state, head = result.state, result.prepared.rows.objective.head
    told = {name: value for name, value in state.best_details.items() if not name.endswith("_loss")}
    shown = [f"{name.replace('_', ' ')} {value:.1%}" for name, value in told.items()]
    if head.task in ("causal_lm", "seq2seq_lm"):
        shown = [f"perplexity {result.perplexity:.2f}"]
    return "".join(f" · {words}" for words in shown)


def _next_command(result: TrainResult) -> str:
    """Return the command that uses what was trained."""
    rows = result.prepared.rows
    folder, task, tokenizer = shlex.quote(str(result.folder)), rows.objective.head.task, rows.target.tokenizer
    if task == "causal_lm":
        return f"lorakit generate {folder} " + ('"..."' if rows.format.name != "text" else '"Once"')
    if rows.objective.name in ("masked_lm", "span_corruption"):
        hidden = "<extra_id_0>" if "<extra_id_0>" in tokenizer.get_vocab() else tokenizer.mask_token
        verb = "predict" if rows.objective.name == "masked_lm" else "generate"
        return f"lorakit {verb} {folder} {shlex.quote(f'One {hidden} is hidden.')}"
    if task == "question_answering":
        return f'lorakit predict {folder} "..." --question "..."'
    pair = ' --pair "..."' if any("text_pair" in row.fields for row in rows.evaluation_rows[:1]) else ""
    return f'lorakit {"generate" if task == "seq2seq_lm" else "predict"} {folder} "..."{pair}'


def _facts() -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _rows_line(prepared: Prepared) -> str:
    rows, report = prepared.rows, prepared.rows.report
    reads = {
        "text": "documents",
        "prompt_completion": "prompt → completion",
        "chat": "conversations",
        "source_target": "source → target",
        "labelled": "texts with labels",
        "tagged": "words with tags",
        "extractive": "questions, contexts, answers",
    }
    duplicates = f" · {counted(report.duplicates, 'duplicate')}" if report.duplicates else ""
    leaked = f" · {counted(report.leaked, 'evaluation row')} among the training rows" if report.leaked else ""
    return safe(
        f"{report.rows:,} to learn, {len(rows.evaluation_rows):,} to evaluate · {reads[rows.format.name]}{duplicates}"
        f"{leaked} · longest {report.longest:,} tokens ({report.longest_where})"
    )


def _objective_line(prepared: Prepared) -> str:
    rows = prepared.rows
    head, settings, tokenizer = rows.objective.head, rows.settings, rows.target.tokenizer
    share = f"{rows.report.learned / max(1, rows.report.tokens):.0%} of {rows.report.tokens:,} tokens"
    match rows.objective.name:
        case "causal_lm" if rows.format.name == "text":
            return f"every token is learned · documents end with {tokenizer.eos_token}"
        case "causal_lm":
            what = "assistant turns" if rows.format.name == "chat" else "answers"
            learned = "and prompts are learned" if settings.train_on_prompt else "are learned, prompts are read"
            return f"{what} {learned} ({share}) · every answer ends with {tokenizer.eos_token}"
        case "masked_lm":
            pairs = " · does the second text follow the first?" if settings.nsp else ""
            return f"hidden words are learned ({settings.probability:.0%} of the tokens, others each epoch){pairs}"
        case "span_corruption":
            return f"spans cut out are learned ({settings.noise_density:.0%}, {settings.mean_span:g} tokens on average)"
        case "seq2seq_lm":
            prefix = f" · every source begins with {settings.prefix!r}" if settings.prefix else ""
            return f"targets are learned, sources are read ({share}) · each ends with {tokenizer.eos_token}{prefix}"
        case "question_answering":
            return "where answers begin and end is learned"
        case "token_classification":
            kind = "tags"
        case _:
            kind = {"regression": "score", "multi_label_classification": "labels, several a row"}.get(
                head.problem or "", "labels"
            )
    named = ", ".join(head.labels[:6]) + (" …" if len(head.labels) > 6 else "")
    return f"{len(head.labels)} {kind}: {safe(named)}"


def _new_weights(prepared: Prepared) -> list[str]:
    """Return a line about weights that the checkpoint does not bring."""
    modules = dict.fromkeys(name.rpartition(".")[0] for name in prepared.built.fresh)
    return [f"new, as the checkpoint has none: {', '.join(modules)}; drawn from the seed"] if modules else []


def _method_line(prepared: Prepared) -> str:
    built, method = prepared.built, prepared.loaded.recipe.method
    trainable = built.trainable
    share = trainable.trained / max(1, built.base_parameters)
    shape = ""
    if method.name in ("lora", "delta"):
        kinds = sorted({kind.rsplit(".", 1)[-1] for kind, _, _ in trainable.summary})
        last = f" in the last {counted(method.last_blocks, 'block')}" if method.last_blocks is not None else ""
        size = f"r={method.rank} α={method.alpha:g}" if method.name == "lora" else "a matrix of full shape"
        shape = f"{size} on {', '.join(kinds)}{last} · "
    saved = f"{'model' if method.name == 'full' else 'adapter'} about {_bytes(trainable.trained * 4)}"
    dropout = prepared.loaded.recipe.train.dropout
    frozen = method.name in ("lora", "head")
    shown = f"{dropout:g}" if dropout is not None else "0" if frozen else "the checkpoint's own where it learns"
    return (
        f"{shape}trains {trainable.trained:,} of {built.base_parameters:,} weights ({share:.1%}) · {saved} · "
        f"dropout {shown}"
    )


def _speed_line(prepared: Prepared) -> str:
    built = prepared.built
    import torch

    recomputed = ", blocks computed again in the backward pass" if built.recomputed else ""
    layout = "packed, no padding" if built.packed else f"buckets of similar length ({built.packing_note})"
    ways = " · ".join([f"{built.precision} ({built.precision_note})", *built.taken])
    return (
        f"{layout} · {ways} · {counted(torch.get_num_threads(), 'thread')} · "
        f"{built.budget:,} tokens at once{recomputed} · peak memory about {_bytes(built.memory)}"
    )


def _step_size(prepared: Prepared) -> str:
    rows = prepared.rows
    if rows.plan.whole:
        return f"all {counted(rows.report.rows, 'row')}"
    return counted(rows.rows_per_step, "row") if rows.rows_per_step is not None else f"{rows.tokens_per_step:,} tokens"


def learning_layouts(summary: Sequence[tuple[str, int, int]], base_parameters: int) -> list[list[str]]:
    """Return what learns, by kind of layer: names whole, names cut at their start, and names on lines of their own.

    Args:
        summary: Name, tensors and weights of each kind.
        base_parameters: Weights of the base, of which shares are taken.
    """
    headings = ("tensors", "weights", "share", "size")
    cells = [
        (f"{tensors:,}", f"{weights:,}", f"{weights / base_parameters:.2%}", _bytes(weights * 4))
        for _, tensors, weights in summary
    ]
    names = [safe(kind) for kind, _, _ in summary]

    def beside(shown: Sequence[str], gap: int) -> list[str]:
        table = Table(box=None, padding=(0, gap))
        table.add_column("learns")
        for heading in headings:
            table.add_column(heading, justify="right")
        for name, numbers in zip(shown, cells, strict=True):
            table.add_row(Text(name), *numbers)
        return lines(table)

    cut = [[end(name, most) for name in names] for most in (40, 36, 32, 28, 24, 20, 16)]
    # Layers of an encoder and of a decoder may end alike.
    told_apart = [shown for shown in cut if len(set(shown)) == len(set(names))]
    below = stacked(
        [("learns", [headings]), *((name, [row]) for name, row in zip(names, cells, strict=True))], ["right"] * 4
    )
    return [beside(names, 2), beside(names, 1), *(beside(shown, 1) for shown in told_apart), below]


def _count(number: int) -> str:
    for size, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.1f} {name}"
    return str(number)


def _bytes(number: int) -> str:
    for size, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= size:
            return f"{number / size:.1f} {name}" if number < 100 * size else f"{number / size:.0f} {name}"
    return f"{number} B"
