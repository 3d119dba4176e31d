"""Options that `generate` and `chat` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_MODEL, _CHOICE, _END = "Model", "Choice of the next token", "End of an answer"

Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET", help="Adapter, run, merged or base model: a folder, a .lora file, a built-in, a Hub id."
    ),
]
Base = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Base of an adapter that does not say where it is.", rich_help_panel=_MODEL),
]
Revision = Annotated[
    str | None, typer.Option(metavar="NAME", help="Branch, tag or commit on the Hub.", rich_help_panel=_MODEL)
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, cpu, cuda or mps; auto takes the accelerator where there is one.",
        rich_help_panel=_MODEL,
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, float32, bfloat16 (bf16) or float16; auto takes bfloat16 on a GPU that has it, else float32.",
        rich_help_panel=_MODEL,
    ),
]
Quantize = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="int8 holds weights in 8 bits: faster on a processor; the change in loss is printed.",
        rich_help_panel=_MODEL,
    ),
]
Speculate = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="prompt: draft tokens from what stands in the prompt, one answer at a time; the same text, often sooner.",
        rich_help_panel=_MODEL,
    ),
]
Fast = Annotated[
    bool,
    typer.Option(help="Take the fast paths, which compute the same numbers up to rounding.", rich_help_panel=_MODEL),
]
Temperature = Annotated[
    float,
    typer.Option(
        metavar="X",
        help="0 takes the most probable token; above 0 draws, 1 from the model as it is.",
        rich_help_panel=_CHOICE,
    ),
]
TopK = Annotated[
    int | None, typer.Option(metavar="K", help="Draw among the K most probable tokens.", rich_help_panel=_CHOICE)
]
TopP = Annotated[
    float | None,
    typer.Option(
        metavar="P", help="Draw among the fewest tokens whose probabilities sum to P.", rich_help_panel=_CHOICE
    ),
]
MinP = Annotated[
    float | None,
    typer.Option(
        metavar="P",
        help="Draw among tokens at least P times as probable as the most probable one.",
        rich_help_panel=_CHOICE,
    ),
]
RepetitionPenalty = Annotated[
    float,
    typer.Option(metavar="X", help="Above 1: tokens that stood before become less probable.", rich_help_panel=_CHOICE),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of the draws.", rich_help_panel=_CHOICE)]
MaxNewTokens = Annotated[int, typer.Option(metavar="N", help="Tokens an answer may have.", rich_help_panel=_END)]
Stop = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="Text that ends an answer; may be given again.", rich_help_panel=_END),
]
Raw = Annotated[bool, typer.Option("--raw", help="Send the prompt as it is, without the framing of the training.")]
Prompt = Annotated[str | None, typer.Argument(metavar="PROMPT", help="Text to go on from; left out: what is piped in.")]
Input = Annotated[
    Path | None,
    typer.Option("--input", metavar="FILE", help="Many prompts: .jsonl with prompt or messages, or .txt, one a line."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="JSONL for the answers to --input; left out: stdout."),
]
NumSamples = Annotated[int, typer.Option(metavar="N", help="Answers drawn for each prompt.", rich_help_panel=_CHOICE)]
NumBeams = Annotated[
    int, typer.Option(metavar="N", help="Beams of a beam search, at most 64; 1: none.", rich_help_panel=_CHOICE)
]
LengthPenalty = Annotated[
    float | None,
    typer.Option(metavar="X", help="Of a beam search; above 0 favours long answers.", rich_help_panel=_CHOICE),
]
ShowSteps = Annotated[
    bool, typer.Option("--show-steps", help="Show for each token what was read and the 5 most probable next.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object an answer.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing --output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No statistics.")]
