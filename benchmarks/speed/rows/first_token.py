"""How long a prompt waits for its first token."""

from __future__ import annotations

from pathlib import Path

from benchmarks.speed import materials
from benchmarks.speed.row import TINY, Arm, Outcome, Row, Stopwatch
from benchmarks.speed.writing import loaded, prepare, prompts

REPEATS = 2 if TINY else 20
TEXT = prompts(1, 256)


def prefill(root: Path) -> Outcome:
    """Run the bare model over the prompt, filling its cache: what no first token can do without."""
    import torch

    model, cut = loaded(root)
    ids_1T = cut(TEXT, return_tensors="pt").input_ids
    watch = Stopwatch()
    with torch.inference_mode():
        for number in range(-2, REPEATS):
            if number == 0:
                watch.start()
            model(input_ids=ids_1T, use_cache=True, logits_to_keep=1)
    watch.stop()
    return watch.outcome(REPEATS)


def lorakit(root: Path) -> Outcome:
    """Let lorakit write one token: prompt read, model run, token chosen and turned into text."""
    from lorakit.generation.settings import DecodingSettings
    from lorakit.workflows.generating import open_writer

    writer = open_writer(materials.model(materials.GPT, root), device="cpu")
    watch = Stopwatch()
    for number in range(-2, REPEATS):
        if number == 0:
            watch.start()
        writer.write(TEXT, DecodingSettings(max_new_tokens=1))
    watch.stop()
    return watch.outcome(REPEATS)


ROWS = (
    Row(
        name="first_token",
        title="First token",
        work="GPT-2 small, a prompt of 256 tokens, one new token, again and again in a warm process.",
        arms=(Arm("the bare model's prefill, transformers", prefill, peer=True), Arm("lorakit", lorakit)),
        prepare=prepare,
        unit="prompts",
        aim="within 1.2 times the time of the prefill, which is 0.83 times as fast or better.",
    ),
)
