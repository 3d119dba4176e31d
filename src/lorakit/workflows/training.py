"""The verb `train`: from a recipe to a run folder whose weights are the ones that were measured."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorakit.errors import LorakitError
from lorakit.recipe import LoadedRecipe, check, load, resolved_yaml
from lorakit.training.events import Reporter
from lorakit.training.overfit import Verdict, judge

if TYPE_CHECKING:
    from lorakit.training.run import Run
    from lorakit.training.state import State
    from lorakit.workflows.building import Built
    from lorakit.workflows.finishing import Finished
    from lorakit.workflows.preparing import Rows
    from lorakit.workflows.run_folders import RunFolder


@dataclass(frozen=True)
class Prepared:
    """All that is known before the first step."""

    loaded: LoadedRecipe
    rows: Rows
    built: Built
    total_steps: int
    device: str
    processes: int
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
    from lorakit.workflows import run_folders

    destination = Path(output) if output is not None else None
    loaded = _recipe(recipe, destination, resume)
    destination = destination or Path("runs") / Path(loaded.source).stem.replace(" ", "-")
    if dry_run:
        return _prepare(loaded, destination, destination)[0]
    from lorakit.workflows.launching import accelerator_for, from_first

    accelerator = accelerator_for(loaded.recipe, destination)
    folder = run_folders.take(destination, resume, force) if accelerator.is_main_process else None
    folder = from_first(accelerator, folder)
    hold = run_folders.locked(folder.work, not resume) if accelerator.is_main_process else nullcontext()
    with hold:
        accelerator.wait_for_everyone()
        prepared, accelerator = _prepare(loaded, destination, folder.work, accelerator)
        if on_prepared is not None and accelerator.is_main_process:
            on_prepared(prepared)
        return _run(prepared, folder, accelerator, resume, reporters)


def _recipe(recipe: LoadedRecipe | str | Path | None, output: Path | None, resume: bool) -> LoadedRecipe:
    """Return the recipe to run; a resumed run has its own, and another one must equal it."""
    given = recipe if isinstance(recipe, LoadedRecipe) or recipe is None else load(recipe)
    if not resume:
        if given is None:
            raise LorakitError("nothing says what to train: give a recipe, or --model and --data.")
        return given
    if output is None and given is None:
        raise LorakitError("--resume needs to know which run: give its folder with -o.")
    from lorakit.adapters.manifest import read_local
    from lorakit.workflows.run_folders import take

    destination = output or Path("runs") / Path(given.source if given else "").stem
    work = take(destination, resume=True, force=False).work
    stored = read_local(work).get("recipe")
    if stored is None:
        raise LorakitError(f"{work} does not hold the recipe it was started with; start it anew with --force.")
    own = json.loads(stored)
    if given is not None and given.recipe.model_dump(mode="json") != own["values"]:
        differing = _differences(own["values"], given.recipe.model_dump(mode="json"))
        raise LorakitError(
            f"{destination} was started with another recipe ({'; '.join(differing[:5])}). Resume it as it is: "
            f"lorakit train --resume -o {destination}"
        )
    return LoadedRecipe(check(own["values"], "local.json"), own["origins"], own["source"])


def _differences(before: dict[str, Any], now: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for key in sorted(before.keys() | now.keys()):
        one, other = before.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differences(one, other, f"{path}{key}.")
        elif one != other:
            found.append(f"{path}{key}: {one!r} then, {other!r} now")
    return found


def _prepare(loaded: LoadedRecipe, output: Path, work: Path, accelerator: Any = None) -> tuple[Prepared, Any]:
    """Do everything up to the first step."""
    from lorakit.adapters.bundle import open_target
    from lorakit.workflows.building import build, follow_parent
    from lorakit.workflows.launching import accelerator_for
    from lorakit.workflows.preparing import prepare_rows

    accelerator = accelerator or accelerator_for(loaded.recipe, work)
    loaded = follow_parent(loaded, open_target(loaded.recipe.model.name, loaded.recipe.model.revision))
    rows = prepare_rows(loaded.recipe)
    built = build(loaded.recipe, rows, accelerator.device, accelerator.num_processes)
    prepared = Prepared(
        loaded, rows, built, rows.plan.total(), str(accelerator.device), accelerator.num_processes, output
    )
    return prepared, accelerator


def _run(
    prepared: Prepared, folder: RunFolder, accelerator: Any, resume: bool, reporters: Iterable[Reporter]
) -> TrainResult:
    from lorakit.training import loop
    from lorakit.workflows.finishing import finish

    run, state, notes = _assemble(prepared, folder, accelerator, resume, reporters)
    try:
        for note in notes:
            run.reporters.report(note)
        state = loop.fit(run, state)
    finally:
        run.reporters.close()
    finished = None
    if accelerator.is_main_process:
        finished = finish(prepared.loaded, prepared.rows, prepared.built, run, state)
        shutil.rmtree(folder.work / "checkpoints", ignore_errors=True)
        folder.finish()
    finished = _shared(accelerator, finished)
    return TrainResult(folder.final, prepared, state, judge(state), finished)


def _shared(accelerator: Any, finished: Finished | None) -> Finished:
    from lorakit.workflows.launching import from_first

    result: Finished = from_first(accelerator, finished)
    return result


def _assemble(
    prepared: Prepared, folder: RunFolder, accelerator: Any, resume: bool, reporters: Iterable[Reporter]
) -> tuple[Run, State, list[Any]]:
    """Put the loop's parts together, fresh or from the newest saved state."""
    from lorakit.training import optim
    from lorakit.training import state as states
    from lorakit.training.events import NoteEvent
    from lorakit.training.reporters import MetricsFile, Reporters, Trackers
    from lorakit.training.run import Run

    recipe, rows, built = prepared.loaded.recipe, prepared.rows, prepared.built
    optimizer = optim.build(built.model, recipe.optim, recipe.learning_rate)
    state, notes = states.State(), []
    if resume:
        newest, damaged = states.newest(folder.work)
        state = states.load(newest, built.model, optimizer, accelerator.process_index, accelerator.device)
        notes = [NoteEvent(f"going on after step {state.step:,}"), *(NoteEvent(text) for text in damaged)]
    elif accelerator.is_main_process:
        _write_start(prepared, folder.work)
    resumed_random = states.random_state()
    model, optimizer = accelerator.prepare(built.model, optimizer)
    states.set_random_state(resumed_random)
    listeners: list[Reporter] = []
    if accelerator.is_main_process:
        listeners = [*reporters, MetricsFile(folder.work / "metrics.jsonl", state.step)]
    if recipe.train.trackers:
        listeners.append(Trackers(accelerator, "lorakit", recipe.model_dump(mode="json")))
    run = Run(
        folder=folder.work,
        model=model,
        objective=rows.objective,
        plan=rows.plan,
        evaluation=rows.evaluation,
        optimizer=optimizer,
        accelerator=accelerator,
        optim=recipe.optim,
        train=recipe.train,
        learning_rate=recipe.learning_rate,
        packed=built.packed,
        budget=built.budget,
        precision=built.precision,
        reporters=Reporters(listeners),
    )
    return run, state, notes


def _write_start(prepared: Prepared, work: Path) -> None:
    """Write what `--resume` needs: the recipe, with paths in local.json alone."""
    from lorakit.adapters.manifest import write_local

    (work / "recipe.yaml").write_text(resolved_yaml(prepared.loaded, shared=True), encoding="utf-8")
    write_local(work, {"recipe": stored_recipe(prepared.loaded)})


def stored_recipe(loaded: LoadedRecipe) -> str:
    """Return the recipe with its paths and origins as JSON, for local.json."""
    values = loaded.recipe.model_dump(mode="json")
    return json.dumps({"values": values, "origins": dict(loaded.origins), "source": loaded.source})
