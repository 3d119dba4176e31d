"""The walls of the house, read from the source with `ast`: floors, cycles, sizes, and where torch may be imported.

Imports inside functions and under ``TYPE_CHECKING`` count for floors and cycles: knowing a higher floor is the fault,
not the moment it is loaded. Lines of a file are counted as an editor shows them; of a function, its body alone, blank
lines and comments included: the signature of a command is the table of its options, and a docstring is read apart.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[2] / "src"

FLOORS = (
    {"errors"},
    {"families"},
    {"types"},
    {"checkpoints"},
    {"data", "fast", "metrics"},
    {"objectives", "methods", "adapters"},
    {"explain", "reports", "generation"},
    {"training"},
    {"recipe"},
    {"workflows"},
    {"cli"},
    {"__main__"},
)
"""Lowest first; rooms of one floor do not import each other."""

LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}

HEAVY = {"torch", "transformers", "peft", "datasets", "accelerate"}
LIGHT = ("lorakit.cli", "lorakit.recipe", "lorakit.data", "lorakit.checkpoints.finding")
"""What `lorakit --help` and the check of a recipe load: no heavy library at the top of these modules."""

MOST_LINES_OF_A_FILE = 300
MOST_LINES_OF_A_FUNCTION = 60


class Import(NamedTuple):
    line: int
    target: str
    """Full dotted name; of ``from a import b``, ``a.b``."""


class Module(NamedTuple):
    name: str
    file: Path
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def room(self) -> str:
        """The package or single module right below lorakit; empty for lorakit itself."""
        return self.name.split(".")[1] if "." in self.name else ""


def modules() -> list[Module]:
    found = []
    for file in sorted(SOURCE.glob("lorakit/**/*.py")):
        parts = file.relative_to(SOURCE).with_suffix("").parts
        found.append(Module(".".join(part for part in parts if part != "__init__"), file, file.read_text("utf-8")))
    return found


MODULES = modules()
NAMES = {module.name for module in MODULES}


def imports(module: Module, nodes=None) -> Iterator[Import]:
    """Yield what a module imports; relative imports resolved."""
    package = module.name.split(".")
    if module.file.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(module.tree) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (Import(node.lineno, f"{base}.{alias.name}") for alias in node.names)


def room_of(target: str) -> str | None:
    """The room an import reaches into; None outside lorakit and for names of lorakit itself (`__version__`)."""
    root, _, rest = target.partition(".")
    room = rest.split(".")[0]
    return room if root == "lorakit" and room in LEVEL else None


def trespasses(module: Module) -> list[str]:
    found = []
    for line, target in imports(module):
        room = room_of(target)
        if room is None or room == module.room or not module.room:
            continue
        if LEVEL[room] >= LEVEL[module.room]:
            which = "a sibling" if LEVEL[room] == LEVEL[module.room] else "a higher floor"
            found.append(f"{module.file}:{line}: {module.room} imports {target}, {which}")
    return found


def heavy_imports(module: Module) -> list[str]:
    """Heavy libraries loaded when the module is: at its top, or in a class or a branch that is not TYPE_CHECKING."""

    def loaded(body: list[ast.stmt]) -> Iterator[ast.stmt]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from loaded(node.orelse)
                continue
            yield node
            for branch in ("body", "orelse", "finalbody"):
                yield from loaded(getattr(node, branch, []))

    return [
        f"{module.file}:{line}: imports {target} when it is loaded; import it inside the function that needs it"
        for line, target in imports(module, loaded(module.tree.body))
        if target.split(".")[0] in HEAVY
    ]


def long_functions(module: Module) -> list[str]:
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node) is not None
            start = node.body[0].end_lineno + 1 if documented else node.body[0].lineno
            lines = node.end_lineno - start + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                found.append(f"{module.file}:{node.lineno}: {node.name} has {lines} lines")
    return found


def first_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one import cycle, the first one again at the end; an empty list where there is none."""
    done: set[str] = set()

    def search(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if cycle := search(other, [*path, name]):
                return cycle
        done.add(name)
        return []

    return next((cycle for name in sorted(graph) if (cycle := search(name, []))), [])


def imported_modules(module: Module) -> set[str]:
    """The modules of lorakit that a module imports: the longest prefix of each target that is one."""
    found = set()
    for _, target in imports(module):
        parts = target.split(".")
        prefixes = (".".join(parts[:length]) for length in range(len(parts), 1, -1))
        found.update(next(([name] for name in prefixes if name in NAMES), []))
    return found - {module.name}


def a_module(name: str, text: str) -> Module:
    return Module(name, Path(f"{name.replace('.', '/')}.py"), text)


def nothing(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


def test_every_room_has_a_floor():
    assert {module.room for module in MODULES} - {""} <= set(LEVEL)


def test_modules_import_from_lower_floors_only():
    nothing([line for module in MODULES for line in trespasses(module)])


def test_no_import_cycle():
    nothing(first_cycle({module.name: imported_modules(module) for module in MODULES}))


def test_no_module_is_called_utils():
    nothing([str(module.file) for module in MODULES if module.file.stem in ("utils", "util", "helpers")])


def test_no_file_is_longer_than_300_lines():
    counted = ((module, len(module.text.splitlines())) for module in MODULES)
    nothing([f"{module.file}: {lines} lines" for module, lines in counted if lines > MOST_LINES_OF_A_FILE])


def test_no_function_is_longer_than_60_lines():
    nothing([line for module in MODULES for line in long_functions(module)])


def test_no_heavy_library_is_loaded_with_the_command_line_the_recipe_or_the_data():
    light = [module for module in MODULES if module.name.startswith(LIGHT)]
    nothing([line for module in light for line in heavy_imports(module)])


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("lorakit.data.x", "from lorakit.cli import screen", "data imports lorakit.cli.screen, a higher floor"),
        ("lorakit.data.x", "def f():\n    import lorakit.training", "data imports lorakit.training, a higher floor"),
        ("lorakit.data.x", "from ..fast import logits", "data imports lorakit.fast.logits, a sibling"),
        ("lorakit.methods.x", "from lorakit import objectives", "methods imports lorakit.objectives, a sibling"),
    ],
)
def test_a_trespass_is_found(name, text, fault):
    (found,) = trespasses(a_module(name, text))
    assert found.endswith(fault)


def test_lower_floors_and_the_own_package_are_no_trespass():
    text = "from lorakit.errors import DataError\nfrom lorakit.types import Row\nfrom lorakit.data import settings"
    assert trespasses(a_module("lorakit.data.x", text)) == []


@pytest.mark.parametrize("text", ["import torch.nn", "try:\n    from peft import LoraConfig\nexcept ImportError: pass"])
def test_a_heavy_import_is_found(text):
    assert len(heavy_imports(a_module("lorakit.cli.x", text))) == 1


@pytest.mark.parametrize(
    "text", ["def f():\n    import torch", "if TYPE_CHECKING:\n    import torch", "import torchvision_like"]
)
def test_an_import_that_waits_is_no_heavy_import(text):
    assert heavy_imports(a_module("lorakit.cli.x", text)) == []


def test_a_cycle_is_found():
    assert first_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_a_long_function_is_found_and_only_its_body_is_counted():
    head = "def f(\n" + "    a,\n" * 40 + "):\n" + '    """A\n' + "    b\n" * 80 + '    """\n'
    assert long_functions(a_module("lorakit.x", head + "    x = 1\n" * 60)) == []
    (found,) = long_functions(a_module("lorakit.x", head + "    x = 1\n" * 61))
    assert found.endswith("x.py:1: f has 61 lines")
