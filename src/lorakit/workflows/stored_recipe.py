"""The recipe of a run as its folder keeps it, with the paths of this computer and what its rows were, to be resumed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorakit.adapters.manifest import read_local, write_local
from lorakit.data.paths import HUB, SHIPPED, STANDARD_INPUT
from lorakit.data.settings import DataSettings
from lorakit.errors import LorakitError
from lorakit.recipe import LoadedRecipe, Recipe, check, load, resolved_yaml
from lorakit.training.settings import TrainSettings

RECIPE = "recipe.yaml"

Stamps = dict[str, tuple[int, str]]
"""Of the ``training`` and the ``evaluation`` rows: how many there are, and their fingerprint."""


def as_local(loaded: LoadedRecipe, stamps: Stamps) -> dict[str, str]:
    """Return the entries of local.json that `recall` and `check_rows` read: the recipe with its origins, the rows."""
    values = _located(loaded.recipe.model_dump(mode="json"), lambda path: path.absolute() if path.exists() else None)
    recipe = {"values": values, "origins": dict(loaded.origins), "source": loaded.source}
    return {"recipe": json.dumps(recipe), "rows": json.dumps(stamps)}


def write(loaded: LoadedRecipe, stamps: Stamps, work: Path) -> None:
    """Write recipe and rows into the folder of a run that begins: for people, for `recall` and for `check_rows`."""
    (work / RECIPE).write_text(resolved_yaml(loaded, shared=True), encoding="utf-8")
    write_local(work, as_local(loaded, stamps))


def seed_of(folder: Path) -> int:
    """Return the seed of the training that wrote `folder`; of a folder without a recipe the one that is the default."""
    recipe = of(folder)
    return recipe.train.seed if recipe is not None else TrainSettings().seed


def of(folder: Path) -> Recipe | None:
    """Return the recipe of the training that wrote `folder`; None where it holds none."""
    file = folder / RECIPE
    return load(file).recipe if file.is_file() else None


def recall(work: Path, output: Path, given: LoadedRecipe | None) -> LoadedRecipe:
    """Return the recipe that the run in `work` was started with.

    Args:
        work: Folder the run writes to.
        output: Folder of the run as the user named it, for messages.
        given: What the user named now; must be equal to it.

    Raises:
        LorakitError: There is none, or `given` differs; says every value then and now.
    """
    stored = read_local(work).get("recipe")
    if stored is None:
        raise LorakitError(f"{output} does not hold the recipe it was started with; start it anew with --force.")
    try:
        own = json.loads(stored)
        recipe = check(own["values"], f"{output}/local.json")
        loaded = LoadedRecipe(recipe, own["origins"], own["source"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(output, error) from error
    if given is not None:
        now = given.recipe.model_dump(mode="json")
        differing = _differences(_located(own["values"], Path.resolve), _located(now, Path.resolve))
        if differing:
            more = f"; and {len(differing) - 5} more" if len(differing) > 5 else ""
            raise LorakitError(
                f"{output} was started with another recipe ({'; '.join(differing[:5])}{more}). Resume it as it is: "
                f"lorakit train --resume -o {shlex.quote(str(output))}"
            )
    return loaded


def check_rows(work: Path, output: Path, data: DataSettings, now: Stamps) -> None:
    """Refuse to go on with other rows than those that the run in `work` was started with.

    A run that an earlier lorakit began does not say what they were, and goes on.

    Args:
        work: Folder the run writes to.
        output: Folder of the run as the user named it, for messages.
        data: Says where the rows come from.
        now: Of the rows that are there now.

    Raises:
        LorakitError: They differ; names the files and what was found.
    """
    try:
        then = {side: tuple(stamp) for side, stamp in json.loads(read_local(work).get("rows", "{}")).items()}
        changed = [
            f"the {side} rows of {_sources(data, side)} ({_counts(then[side][0], now[side][0])})"
            for side in now
            if then.get(side, now[side]) != now[side]
        ]
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise _damaged(output, error) from error
    if changed:
        raise LorakitError(
            f"{output} was started with other rows than are there now: {', and '.join(changed)}. Put the rows back as "
            f"they were and resume, or start anew with another -o."
        )


def _counts(then: int, now: int) -> str:
    return f"{then:,} then, {now:,} now" if then != now else f"{now:,} as before, with other contents or in other order"


def _sources(data: DataSettings, side: str) -> str:
    """Return where training or evaluation rows come from, for messages; a share of others comes from where they do."""
    source = data.train if side == "training" or data.eval is None or isinstance(data.eval, float) else data.eval
    names = [one if isinstance(one, str) else one.path for one in (source if isinstance(source, list) else [source])]
    named = ["standard input" if name == STANDARD_INPUT else name for name in names[:3]]
    return ", ".join(named) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _damaged(output: Path, error: Exception) -> LorakitError:
    return LorakitError(f"{output}/local.json is damaged ({error}); start the run anew with --force.")


def _located(values: dict[str, Any], place: Callable[[Path], Path | None]) -> dict[str, Any]:
    """Return the values of a recipe with the files of its rows and new tokens put through `place`; None keeps one."""

    def placed(source: Any) -> Any:
        if isinstance(source, list):
            return [placed(one) for one in source]
        if isinstance(source, dict):
            return {**source, "path": placed(source["path"])}
        if not isinstance(source, str) or source == STANDARD_INPUT or source.startswith((HUB, SHIPPED)):
            return source
        return str(place(Path(source).expanduser()) or source)

    data = {key: placed(value) if key in ("train", "eval") else value for key, value in values["data"].items()}
    model = {key: placed(value) if _names_file(key, value) else value for key, value in values["model"].items()}
    return {**values, "model": model, "data": data}


def _names_file(key: str, value: Any) -> bool:
    return key == "add_tokens" and isinstance(value, str)


def _differences(before: dict[str, Any], now: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for key in sorted(before.keys() | now.keys()):
        one, other = before.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differences(one, other, f"{path}{key}.")
        elif one != other:
            found.append(f"{path}{key}: {one!r} then, {other!r} now")
    return found
