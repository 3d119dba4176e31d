"""The verb `train`: from a recipe to a run folder whose weights are the ones that were measured."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.errors import LorakitError
from lorakit.families import width
from lorakit.recipe import LoadedRecipe, Recipe, load, with_default_rate
from lorakit.recipe.writing import shared_values
from lorakit.training.events import NoteEvent, Reporter
from lorakit.training.overfit import Verdict, judge

if TYPE_CHECKING:
    from lorakit.training.run import Run
    from lorakit.training.signals import Signals
    from lorakit.training.state import State
    from lorakit.workflows.building import Built
    from lorakit.workflows.finishing import Finished
    from lorakit.workflows.preparing import Rows
    from lorakit.workflows.run_folders import RunFolder


@dataclass(frozen=True)
class Prepared:
    """All that is known before the first step."""

    given: LoadedRecipe
    """As it was asked for; kept for `--resume`."""
    loaded: LoadedRecipe
    """As it runs: with the method of the adapter it goes on from, if any, and the learning rate of its objective."""
    rows: Rows
    built: Built
    total_steps: int
    device: str
    processes: int
    speaks: bool
    """Whether this is the first process, the one that prints."""
    output: Path


@dataclass(frozen=True)
class TrainResult:
    """What a run came to."""

    folder: Path
    prepared: Prepared
    state: State
    verdict: Verdict
    finished: Finished

    @property
    def perplexity(self) -> float:
        """Exp of the best evaluation loss."""
        return math.exp(min(700.0, self.state.best_loss or 0.0))


def train(
    recipe: LoadedRecipe | str | Path | None = None,
    output: str | Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    dry_run: bool = False,
    reporters: Iterable[Reporter] = (),
    on_prepared: Callable[[Prepared], None] | None = None,
) -> TrainResult | Prepared:
    """Fine-tune a checkpoint as a recipe says, and write the run folder.

    Args:
        recipe: What `recipe.load` returned, a path, or the name of a shipped recipe; may be left out to resume.
        output: Folder of the run; left out: ``runs/`` and the name of the recipe.
        resume: Go on with an unfinished run.
        force: Replace an existing run folder once the new one is whole.
        dry_run: Do everything up to the first step, write nothing, and return `Prepared`.
        reporters: Told of steps and evaluations, besides metrics.jsonl.
        on_prepared: Called before the first step.

    Returns:
        The result; with `dry_run`, what was prepared.

    Raises:
        LorakitError: Anything the user can put right; `Interrupted` after a signal, with all progress saved.
    """
    from lorakit.training.signals import Signals
    from lorakit.workflows import run_folders
    from lorakit.workflows.launching import accelerator_for, from_first

    with Signals() as signals:
        destination = Path(output) if output is not None else None
        loaded, destination = _recipe(recipe, destination, resume)
        accelerator = accelerator_for(loaded.recipe, destination)
        if dry_run:
            return _prepare(loaded, destination, accelerator, keep=False)
        folder = run_folders.take(destination, resume, force) if accelerator.is_main_process else None
        folder = from_first(accelerator, folder)
        if resume:
            signals.consequence = f"what was saved before stays. {_go_on(destination)}"
        hold = run_folders.locked(folder.work, not resume) if accelerator.is_main_process else nullcontext()
        with hold:
            accelerator.wait_for_everyone()
            prepared = _prepare(loaded, destination, accelerator, folder.work if resume else None)
            if on_prepared is not None and prepared.speaks:
                on_prepared(prepared)
            return _run(prepared, folder, accelerator, signals, resume, reporters)


def _go_on(output: Path) -> str:
    return f"Go on with: lorakit train --resume -o {shlex.quote(str(output))}"


def _recipe(recipe: LoadedRecipe | str | Path | None, output: Path | None, resume: bool) -> tuple[LoadedRecipe, Path]:
    """Return the recipe to run and the folder of the run; a resumed run has its own, and another one must equal it."""
    from lorakit.workflows import run_folders, stored_recipe

    given = recipe if isinstance(recipe, LoadedRecipe) or recipe is None else load(recipe)
    if given is None and not resume:
        raise LorakitError("nothing says what to train: give a recipe, or --model and --data.")
    if output is None and given is None:
        raise LorakitError("--resume needs to know which run: give its folder with -o.")
    if output is None:
        output = Path("runs") / Path(given.source if given else "").stem.replace(" ", "-")
    if output.name in ("", ".."):
        output = output.resolve()
    if not resume:
        assert given is not None
        return given, output
    work = run_folders.take(output, resume=True, force=False).work
    return stored_recipe.recall(work, output, given), output


def _prepare(
    given: LoadedRecipe, output: Path, accelerator: Any, begun: Path | None = None, keep: bool = True
) -> Prepared:
    """Do everything up to the first step.

    Args:
        given: The recipe as it was asked for.
        output: Folder of the run as the user named it.
        accelerator: Of this process.
        begun: Folder of a run that goes on, with the rows it began with.
        keep: Whether encoded rows are kept for later starts.
    """
    from lorakit.adapters.bundle import open_target
    from lorakit.workflows import stored_recipe
    from lorakit.workflows.building import build, follow_parent
    from lorakit.workflows.launching import after_first, cut_as
    from lorakit.workflows.preparing import prepare_rows

    loaded = follow_parent(given, open_target(given.recipe.model.name, given.recipe.model.revision))
    shared = loaded.recipe.speed.tokens and not loaded.recipe.data.stream
    rows = after_first(accelerator, shared, lambda: prepare_rows(loaded.recipe, keep, accelerator))
    if begun is not None:
        stored_recipe.check_rows(begun, output, loaded.recipe.data, rows.stamps())
    loaded = with_default_rate(loaded, rows.objective.name, width(rows.checkpoint.config))
    built = build(loaded.recipe, rows, accelerator.device, accelerator.num_processes, cut_as())
    return Prepared(
        given=given,
        loaded=loaded,
        rows=rows,
        built=built,
        total_steps=rows.plan.total(),
        device=str(accelerator.device),
        processes=accelerator.num_processes,
        speaks=accelerator.is_main_process,
        output=output,
    )


def _run(
    prepared: Prepared,
    folder: RunFolder,
    accelerator: Any,
    signals: Signals,
    resume: bool,
    reporters: Iterable[Reporter],
) -> TrainResult:
    from lorakit.training import loop
    from lorakit.workflows import prefix, stored_recipe
    from lorakit.workflows.finishing import finish
    from lorakit.workflows.launching import from_first

    run, state, notes = _assemble(prepared, folder, accelerator, signals, resume, reporters)
    try:
        for note in (*prepared.rows.amiss, *notes):
            run.reporters.report(NoteEvent(note))
        state = loop.fit(run, state)
        prefix.remove(folder.work)
    finally:
        for note in prepared.rows.streamed():
            run.reporters.report(NoteEvent(note))
        run.reporters.close()
    signals.consequence = f"all steps are saved, the result is not written yet. {_go_on(folder.final)}"
    finished = None
    if prepared.speaks or run.sharded:
        local = stored_recipe.as_local(prepared.given, prepared.rows.stamps())
        finished = finish(prepared.loaded, prepared.rows, prepared.built, run, state, local)
    if prepared.speaks:
        folder.finish()
    finished = from_first(accelerator, finished)
    return TrainResult(folder.final, prepared, state, judge(state), finished)


def _assemble(
    prepared: Prepared,
    folder: RunFolder,
    accelerator: Any,
    signals: Signals,
    resume: bool,
    reporters: Iterable[Reporter],
) -> tuple[Run, State, list[str]]:
    """Put the loop's parts together, fresh or from the newest saved state; also return what is to be said about it."""
    from lorakit.training import state as states
    from lorakit.training.reporters import MetricsFile, Reporters, Trackers
    from lorakit.training.run import Run
    from lorakit.workflows import launching, stored_recipe
    from lorakit.workflows.compiling import compiled_of
    from lorakit.workflows.prefix import frontier_of

    recipe, rows, built = prepared.loaded.recipe, prepared.rows, prepared.built
    random = states.random_state()
    spread = launching.spread(built.model, rows.checkpoint.family, recipe, built.precision, accelerator)
    states.set_random_state(random)
    state, notes = states.State(), launching.notes(accelerator)
    if resume:
        newest, damaged = states.newest(folder.work)
        state = states.load(newest, built.model, spread.states, accelerator.process_index, accelerator.device)
        notes += [f"going on after step {state.step:,}", *damaged]
    elif prepared.speaks:
        stored_recipe.write(prepared.given, rows.stamps(), folder.work)
    listeners: list[Reporter] = []
    if prepared.speaks:
        listeners = [*reporters, MetricsFile(folder.work / "metrics.jsonl", state.step if resume else None)]
    if recipe.train.trackers:
        listeners.append(Trackers(accelerator, "lorakit", _told(recipe)))
    run = Run(
        folder=folder.work,
        output=folder.final,
        model=spread.model,
        objective=rows.objective,
        plan=rows.plan,
        evaluation=rows.evaluation,
        optimizer=spread.optimizer,
        accelerator=accelerator,
        optim=recipe.optim,
        train=recipe.train,
        learning_rate=recipe.learning_rate,
        packed=built.packed,
        budget=built.budget,
        per_token=built.per_token,
        precision=built.precision,
        reporters=Reporters(listeners),
        signals=signals,
        sharded=launching.shards(),
    )
    run.frontier, kept = frontier_of(run, recipe, rows)
    run.compiled, compiled = compiled_of(run, recipe, rows, built)
    return run, state, [*notes, *(told for told in (kept, compiled) if told)]


def _told(recipe: Recipe) -> dict[str, int | float | str]:
    """Return the recipe as trackers take it: dotted names, nothing but numbers and words, no path."""
    values = shared_values(recipe)
    return {key: value if isinstance(value, int | float | str) else str(value) for key, value in values.items()}
