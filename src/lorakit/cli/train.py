"""`lorakit train`: fine-tune a checkpoint as a recipe or a few options say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorakit.cli.screen import ACCENT, safe, say
from lorakit.errors import LorakitError

if TYPE_CHECKING:
    from lorakit.recipe import LoadedRecipe


def train(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="A YAML file or the name of a shipped recipe.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Hub id, folder, run, .lora file or built-in to start from.", rich_help_panel="What"
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="ROWS", help="A file, a folder, - (piped in) or hf://name.", rich_help_panel="What"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Folder of the run; left out: runs/ and the recipe's name."
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="full, freeze, head, lora or delta.", rich_help_panel="How")
    ] = None,
    epochs: Annotated[
        str | None, typer.Option(metavar="N", help="Passes over the rows.", rich_help_panel="How")
    ] = None,
    lr: Annotated[str | None, typer.Option(metavar="X", help="Highest learning rate.", rich_help_panel="How")] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(metavar="N", help="Rows of one optimizer step, over all processes.", rich_help_panel="How"),
    ] = None,
    max_length: Annotated[
        str | None, typer.Option(metavar="N", help="Longest row in tokens.", rich_help_panel="How")
    ] = None,
    seed: Annotated[
        str | None, typer.Option(metavar="N", help="Seed of order, split and new weights.", rich_help_panel="How")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.", rich_help_panel="How")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="NAME", help="auto, float32 or bfloat16.", rich_help_panel="How")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Any key of the recipe; repeatable.", rich_help_panel="How"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run of -o.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run once the new one is whole.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show every value of the recipe and all checks; train and write nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what must be said.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="A line for every step.")] = False,
) -> None:
    """Fine-tune a checkpoint on your rows; the adapter, its model card and its numbers land in one folder.

    What is given here stands above the recipe; what neither names has a default, which --dry-run shows.

    Example: lorakit train --model tiny-gpt --data rows.csv -o runs/x
    """
    from lorakit.cli import progress, report
    from lorakit.workflows.launching import leave_group
    from lorakit.workflows.training import Prepared
    from lorakit.workflows.training import train as run

    options = {
        ("model.name", "--model"): model,
        ("data.train", "--data"): data,
        ("method.name", "--method"): method,
        ("train.epochs", "--epochs"): epochs,
        ("optim.learning_rate", "--lr"): lr,
        ("train.rows_per_step", "--batch-size"): batch_size,
        ("data.max_length", "--max-length"): max_length,
        ("train.seed", "--seed"): seed,
        ("train.device", "--device"): device,
        ("train.dtype", "--dtype"): dtype,
    }
    overrides = [(key, value, origin) for (key, origin), value in options.items() if value is not None]
    overrides += [_assignment(text) for text in settings or []]
    loaded = _loaded(recipe, overrides, resume, data)
    verbosity = verbose - quiet
    try:
        result = run(
            loaded,
            output or (_default_output(recipe, data) if loaded is not None else None),
            resume=resume,
            force=force,
            dry_run=dry_run,
            reporters=[progress.reporter(verbosity)],
            on_prepared=None if quiet else report.show_start,
        )
    finally:
        leave_group()
    prepared = result if isinstance(result, Prepared) else result.prepared
    if not prepared.speaks:
        return
    if isinstance(result, Prepared):
        report.show_dry_run(result)
        say("dry run: nothing was written", style=ACCENT)
        return
    if not quiet:
        report.show_end(result)
    typer.echo(safe(str(result.folder)))


def _loaded(
    recipe: str | None, overrides: list[tuple[str, str, str]], resume: bool, data: str | None
) -> LoadedRecipe | None:
    from lorakit.recipe import load

    if recipe is None and not overrides:
        if resume:
            return None
        raise typer.BadParameter("give a recipe (lorakit recipes list), or --model and --data.")
    whole = {"model.name", "data.train"} <= {key for key, _, _ in overrides}
    if resume and recipe is None and not whole:
        named = ", ".join(origin if origin != "--set" else f"--set {key}" for key, _, origin in overrides)
        raise LorakitError(f"--resume goes on with the run's own recipe; leave out {named}.")
    return load(recipe, overrides)


def _assignment(text: str) -> tuple[str, str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise typer.BadParameter(f"{text!r} is not of the form section.key=value.", param_hint="--set")
    return key, value, "--set"


def _default_output(recipe: str | None, data: str | None) -> Path:
    name = Path(recipe or data or "run").name
    return Path("runs") / (name.split(".")[0] or "run")
