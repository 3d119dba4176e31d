"""What the pages tell a reader to type can be typed: every command is parsed, and those of the READMEs are run."""

import contextlib
import io
import re
import shlex
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from scripts import cli_reference
from typer.main import get_command
from typer.testing import CliRunner

from lorakit.checkpoints.locating import locate
from lorakit.cli.main import app

ROOT = Path(__file__).parents[2]
READMES = (ROOT / "README.md", ROOT / "README.ko.md")
PAGES = (*READMES, *sorted((ROOT / "docs").glob("*.md")))
NEEDS_THE_HUB = "gpt2"
"""In the name of what is fetched from the Hub, and of every run that starts from it: such commands are only parsed."""


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Return (language, text) of the fenced blocks of some languages, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [(language, text) for language, text in found if language in languages]


def commands(page: Path) -> list[str]:
    """Return what a reader would type: each line of an sh block, of a console block those that begin with $."""
    return [
        line.removeprefix("$ ")
        for language, text in blocks(page, "sh", "console")
        for line in text.splitlines()
        if (language == "sh" or line.startswith("$ ")) and line.strip() and not line.startswith("#")
    ]


def arguments(command: str) -> list[str]:
    """Return the words behind `lorakit`, also where a launcher stands before it; redirections left out."""
    words = shlex.split(command.split(" > ")[0])
    return words[words.index("lorakit") + 1 :] if "lorakit" in words else []


def parse(words: list[str]) -> None:
    """Let the real command line read the words, without running the command."""
    command, name = get_command(app), "lorakit"
    while hasattr(command, "commands"):
        name, *words = words
        command = command.commands[name]
    command.make_context(name, words)


def told() -> list[tuple[str, str]]:
    """Return (page, command) for every command of every page that calls lorakit."""
    return [(page.name, command) for page in PAGES for command in commands(page) if arguments(command)]


@pytest.mark.parametrize(("page", "command"), told())
def test_a_command_of_a_page_is_one_that_exists(page, command):
    parse(arguments(command))


def test_no_two_commands_of_the_pages_write_to_the_same_place():
    # The Korean README repeats the English one.
    typed = [arguments(command) for page, command in told() if page != READMES[1].name]
    places = Counter(place for words in typed for option, place in pairwise(words) if option in ("-o", "--output"))
    assert len(places) > 20
    assert [place for place, count in places.items() if count > 1] == []


def test_a_command_that_does_not_exist_is_found():
    with pytest.raises(Exception, match="--modl"):
        parse(["train", "--modl", "x"])


def test_a_command_behind_a_launcher_is_found():
    assert arguments("A=b accelerate launch --x 2 -m lorakit train quickstart") == ["train", "quickstart"]


def test_both_readmes_tell_the_same_commands_in_the_same_order():
    assert commands(READMES[0]) == commands(READMES[1])
    assert blocks(READMES[0], "python") == blocks(READMES[1], "python")


def test_the_commands_of_the_figures_exist():
    script = (ROOT / "benchmarks" / "figures.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    found = [line.split(" > ")[0] for line in script.splitlines() if line.strip().startswith("lorakit")]
    assert len(found) == 13
    for command in found:
        parse(arguments(command))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_points_to_files_that_exist(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_reference_is_what_the_command_line_says_of_itself():
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == cli_reference.page()


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder like a reader's: the examples, and under the name of E2E's table the one with the same columns."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copy(ROOT / "README.md", folder)
    shutil.copy(ROOT / "examples" / "restaurants-20.csv", folder / "trainset.csv")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORAKIT_CACHE", str(folder / "cache"))
        yield folder
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def results(desk):
    """Run each command of the README that needs nothing but the package, in order; return command -> result."""
    found = {}
    for command in dict.fromkeys(commands(READMES[0])):
        if not command.startswith("lorakit ") or NEEDS_THE_HUB in command:
            continue
        words = arguments(command)
        short = ["--set", "train.max_steps=2"] if words[0] == "train" else []
        found[command] = CliRunner().invoke(app, [*words, *short], input="hello\n/quit\n")
    return found


def test_the_commands_of_the_readme_run_as_written(results):
    failed = {command: (result.exception, result.stderr) for command, result in results.items() if result.exit_code}
    assert failed == {}
    assert {arguments(command)[0] for command in results} == {
        "train", "generate", "predict", "evaluate", "chat", "merge", "adapter", "push", "new", "recipes", "base"
    }  # fmt: skip


def test_the_lines_for_plain_peft_write_what_lorakit_writes(results):
    [(_, lines)] = blocks(READMES[0], "python")
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        exec(lines.replace('"PATH"', repr(str(locate("tiny-gpt").folder))), {})
    asked = next(command for command in results if command.startswith("lorakit generate runs/tickets "))
    # The page asks for fewer tokens; what was cut may end inside a character.
    text = written.getvalue().rstrip("\n\ufffd")
    assert text
    assert results[asked].stdout.startswith(text)
