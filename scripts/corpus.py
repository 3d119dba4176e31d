"""Gather the text the built-in checkpoint is pretrained on, from what any machine with lorakit installed holds.

English: the documentation strings of Python's standard library and of lorakit's dependencies, the language reference,
and the descriptions that come with each package. Korean: `scripts.korean_text`. Prose is kept; code, tables, doctests
and repeated paragraphs are not. The same environment and seed give the same bytes.

    python -m scripts.corpus -o corpus.txt --evaluation heldout.txt
"""

from __future__ import annotations

import argparse
import ast
import builtins
import importlib.metadata
import inspect
import random
import re
import sys
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from pydoc_data.topics import topics

from scripts import korean_text, prose

SKIPPED_FOLDERS = {"test", "tests", "testing", "site-packages", "__pycache__", "_vendor", "vendor", "idle_test"}
PASSAGE_CHARACTERS = 900
"""Aim for the length of one document: about what 256 positions hold."""
KOREAN_SHARE = 0.28
"""Share of the bytes of the corpus that is Korean."""


def docstrings(path: Path) -> Iterator[str]:
    """Yield the documentation strings of one Python file from top to bottom; nothing of a file that does not parse."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text
        elif (
            isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        ):
            # Packages written in C keep their documentation in string constants.
            if len(node.value.value) > 200:
                yield inspect.cleandoc(node.value.value)
        elif isinstance(node, ast.Call):
            # torch and numpy attach theirs by calls: add_docstr(function, "...").
            for argument in node.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and len(argument.value) > 200:
                    yield inspect.cleandoc(argument.value)


def comments(path: Path) -> Iterator[str]:
    """Yield the blocks of at least three comment lines of one Python file."""
    text = path.read_text(encoding="utf-8", errors="ignore")
    for block in re.findall(r"(?:^[ \t]*#(?: .*)?\n){3,}", text, flags=re.MULTILINE):
        yield "\n".join(line.strip().removeprefix("#").removeprefix(" ") for line in block.splitlines())


def python_files(folder: Path) -> list[Path]:
    """Return the Python files below `folder`, sorted, without tests and vendored copies."""
    return sorted(
        path
        for path in folder.rglob("*.py")
        if not SKIPPED_FOLDERS.intersection(path.relative_to(folder).parts[:-1]) and not path.name.startswith("test_")
    )


def builtin_documentation() -> Iterator[str]:
    """Yield the documentation of the functions, classes and methods that are written in C."""
    for name in sorted(vars(builtins)):
        value = getattr(builtins, name)
        yield inspect.getdoc(value) or ""
        if inspect.isclass(value):
            yield from (inspect.getdoc(member) or "" for _, member in sorted(vars(value).items()) if callable(member))


def dependencies(root: str = "lorakit") -> list[importlib.metadata.Distribution]:
    """Return the installed distributions that `root` needs, directly or not, sorted by name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [root]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        required = [line for line in found[name].requires or () if "extra ==" not in line]
        waiting += [match.group() for line in required if (match := re.match(r"[A-Za-z0-9._-]+", line))]
    del found[root]
    return [found[name] for name in sorted(found)]


def texts_of(path: Path) -> list[str]:
    """Return the raw texts of one file: its documentation and comments, or, for a page of prose, the page."""
    if path.suffix == ".py":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [*docstrings(path), *comments(path)]
    return [path.read_text(encoding="utf-8", errors="ignore")]


def english_files() -> Iterator[tuple[str, str, list[str]]]:
    """Yield (origin, name of the file, its raw texts), in a fixed order."""
    library = Path(sysconfig.get_path("stdlib"))
    for name in sorted(topics):
        yield "language reference", name, [topics[name]]
    yield "standard library", "builtins", list(builtin_documentation())
    for path in python_files(library):
        if path.name != "topics.py":
            yield "standard library", str(path.relative_to(library)), texts_of(path)
    for distribution in dependencies():
        origin = distribution.metadata["Name"]
        yield origin, f"{origin} description", [str(distribution.metadata.json.get("description", ""))]
        for entry in sorted(distribution.files or (), key=str):
            page = entry.suffix in {".rst", ".md", ".txt"} and "license" not in entry.name.lower()
            if (entry.suffix == ".py" or page) and not SKIPPED_FOLDERS.intersection(entry.parts[:-1]):
                path = Path(str(distribution.locate_file(entry)))
                if path.is_file():
                    yield origin, str(entry), texts_of(path)


def passages(paragraphs: Iterable[str], characters: int = PASSAGE_CHARACTERS) -> list[str]:
    """Join paragraphs, a blank line between them, into passages of about `characters` characters each."""
    gathered: list[list[str]] = [[]]
    for paragraph in paragraphs:
        if gathered[-1] and sum(map(len, gathered[-1])) + len(paragraph) > characters:
            gathered.append([])
        gathered[-1].append(paragraph)
    return ["\n\n".join(passage) for passage in gathered if passage]


def english_documents(sieve: prose.Sieve) -> Iterator[tuple[str, list[str]]]:
    """Yield (origin, passages) for each file that holds prose not seen before."""
    for origin, _, texts in english_files():
        found = passages(paragraph for text in texts for paragraph in sieve.keep(prose.paragraphs(text)))
        # A lone half sentence teaches nothing but how to stop early.
        found = [passage for passage in found if len(passage) >= 80]
        if found:
            yield origin, found


def gather(seed: int, share: float, megabytes: float | None) -> tuple[list[str], list[str], Counter[str]]:
    """Return training passages, held-out passages, and kept bytes by origin.

    Whole files, not passages, are held out, so that no page stands on both sides.
    """
    generator = random.Random(seed)
    files = list(english_documents(prose.Sieve()))
    generator.shuffle(files)
    written = 1 - KOREAN_SHARE
    if megabytes is not None:
        files = within(files, megabytes * 1e6 * written)
    total = sum(len(passage.encode()) for _, found in files for passage in found) / written
    files += [("Korean", [document]) for document in korean_text.documents(seed, round(total * KOREAN_SHARE))]
    sizes: Counter[str] = Counter()
    training: list[str] = []
    held_out: list[str] = []
    for origin, found in files:
        sizes[origin] += sum(len(passage.encode()) for passage in found)
        (held_out if generator.random() < share else training).extend(found)
    generator.shuffle(training)
    return training, held_out, sizes


def within(files: list[tuple[str, list[str]]], limit: float) -> list[tuple[str, list[str]]]:
    """Return the files from the start of the list that fit into `limit` bytes together."""
    kept, total = [], 0
    for origin, found in files:
        total += sum(len(passage.encode()) for passage in found)
        if total > limit:
            break
        kept.append((origin, found))
    return kept


def write(path: Path, documents: list[str]) -> None:
    """Write documents as plain text, two blank lines between them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n\n".join(documents) + "\n", encoding="utf-8")


def main() -> None:
    """Read the options, write the files, print counts on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="training text")
    parser.add_argument("--evaluation", type=Path, help="held-out text, disjoint from the training text")
    parser.add_argument("--share", type=float, default=0.02, help="share of files held out (default: 0.02)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-megabytes", type=float, help="stop at this size (default: all there is)")
    options = parser.parse_args()
    share = options.share if options.evaluation is not None else 0.0
    training, held_out, sizes = gather(options.seed, share, options.max_megabytes)
    write(options.output, training)
    if options.evaluation is not None:
        write(options.evaluation, held_out)
    for origin, size in sizes.most_common():
        print(f"{size / 1e6:9.3f} MB  {origin}", file=sys.stderr)
    print(f"{options.output}: {len(training)} documents; held out: {len(held_out)}", file=sys.stderr)


if __name__ == "__main__":
    main()
