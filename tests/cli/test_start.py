"""What is asked before any work is done loads no heavy library: `--help`, `--version`, each command's `--help`."""

import json
import subprocess
import sys

import pytest
from typer.main import get_command

from lorakit.cli.main import app

HEAVY = ("torch", "transformers", "peft", "datasets", "accelerate", "tokenizers", "safetensors", "pandas", "numpy")

PROBE = f"""
import json, sys
from lorakit.__main__ import run
sys.argv = ["lorakit", *json.loads(sys.argv[1])]
code = 0
try:
    run()
except SystemExit as leaving:
    code = leaving.code
loaded = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps(dict(code=code, loaded=loaded)), file=sys.stderr)
"""


def start(*arguments):
    """Run lorakit in a fresh interpreter; return its exit code, its output, and which heavy libraries it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(arguments)], capture_output=True, encoding="utf-8", check=True
    )
    told = json.loads(done.stderr.splitlines()[-1])
    return told["code"], done.stdout, told["loaded"]


def commands():
    """Every command line that only asks for help: ``()``, ``("train",)``, ``("recipes", "list")``."""

    def below(command, path):
        yield path
        for name, child in sorted(getattr(command, "commands", {}).items()):
            yield from below(child, (*path, name))

    return list(below(get_command(app), ()))


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_loads_no_heavy_library(command):
    code, output, loaded = start(*command, "--help")
    assert (code, loaded) == (0, [])
    assert "Usage:" in output


def test_version_loads_no_heavy_library():
    import lorakit

    assert start("--version") == (0, f"lorakit {lorakit.__version__}\n", [])


def test_the_probe_sees_a_heavy_library():
    probe = PROBE.replace("run()", "import numpy")
    done = subprocess.run([sys.executable, "-c", probe, "[]"], capture_output=True, encoding="utf-8", check=True)
    assert json.loads(done.stderr)["loaded"] == ["numpy"]
