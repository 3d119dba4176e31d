"""The recipe of a run as its folder keeps it, with the paths of this computer, so that it can be resumed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorakit.adapters.manifest import read_local, write_local
from lorakit.data.paths import HUB, SHIPPED, STANDARD_INPUT
from lorakit.errors import LorakitError
from lorakit.recipe import LoadedRecipe, check, load, resolved_yaml
from lorakit.training.settings import TrainSettings

RECIPE = "recipe.yaml"


def as_local(loaded: LoadedRecipe) -> dict[str, str]:
    """Return the entry of local.json that `recall` reads: the recipe with its origins."""
    values = _located(loaded.recipe.model_dump(mode="json"), lambda path: path.absolute() if path.exists() else None)
    return {"recipe": json.dumps({"values": values, "origins": dict(loaded.origins), "source": loaded.source})}


def write(loaded: LoadedRecipe, work: Path) -> None:
    """Write the recipe into the folder of a run that begins: for people, and for `recall`."""
    (work / RECIPE).write_text(resolved_yaml(loaded, shared=True), encoding="utf-8")
    write_local(work, as_local(loaded))


def seed_of(folder: Path) -> int:
    """Return the seed of the training that wrote `folder`; of a folder without a recipe the one that is the default."""
    file = folder / RECIPE
    return load(file).recipe.train.seed if file.is_file() else TrainSettings().seed


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
        raise LorakitError(f"{output}/local.json is damaged ({error}); start the run anew with --force.") from error
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
