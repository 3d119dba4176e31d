"""What `pip install .` installs: the whole package, with its recipes and the built-in checkpoint."""

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
NOT_SOURCE = shutil.ignore_patterns("__pycache__", "*.egg-info")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of what a wheel is made from, so that building leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=NOT_SOURCE)
    return folder


@pytest.fixture(scope="module")
def source(copy):
    """Name -> bytes of every file of the package."""
    files = (path for path in (copy / "src" / "lorakit").rglob("*") if path.is_file())
    return {path.relative_to(copy / "src").as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def installed(copy, source):
    """Name -> bytes of what the wheel installs; built without a network."""
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    [wheel] = (copy / "dist").glob("*.whl")
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_the_whole_package_and_nothing_else(installed, source):
    assert installed.keys() == source.keys()
    assert installed == source


def test_the_wheel_holds_recipes_and_their_rows(installed):
    held = {name.rsplit("/", 1)[1] for name in installed if name.startswith("lorakit/recipes/")}
    assert {"quickstart.yaml", "quickstart-train.jsonl", "quickstart-eval.jsonl", "answers-lora.yaml"} <= held


def test_the_wheel_holds_the_builtin_checkpoint(installed):
    held = {name.rsplit("/", 1)[1] for name in installed if name.startswith("lorakit/builtin/tiny-gpt/")}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= held
