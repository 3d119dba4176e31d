"""A LoRA pair folded into a model of 1 GB."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.speed import materials
from benchmarks.speed.row import TINY, Arm, Outcome, Row, Stopwatch

WIDTH, LAYERS, WORDS = (64, 2, materials.VOCABULARY) if TINY else (1024, 12, 32000)


def base(root: Path) -> Path:
    """Return the folder of a Llama of 267 million weights, in shards of 250 MB."""

    def write(folder: Path) -> None:
        import torch
        import transformers

        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=WIDTH // 64,
            intermediate_size=4 * WIDTH,
            vocab_size=WORDS,
            tie_word_embeddings=False,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        transformers.LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="250MB")
        materials.tokenizer("gpt2").save_pretrained(folder)

    return materials.made(root / f"llama-{LAYERS}x{WIDTH}", write)


def adapter(root: Path) -> Path:
    """Return the folder of a pair of rank 16 for each linear layer, neither of them zero."""

    def write(folder: Path) -> None:
        import peft
        import torch
        import transformers

        torch.manual_seed(1)
        model = transformers.AutoModelForCausalLM.from_pretrained(base(root))
        wanted = peft.LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
        pairs = peft.get_peft_model(model, wanted)
        for name, weight in pairs.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.02)
        pairs.save_pretrained(folder)

    return materials.made(root / f"adapter-{LAYERS}x{WIDTH}", write)


def prepare(root: Path) -> None:
    """Write base and adapter."""
    adapter(root)


def with_peft(root: Path) -> Outcome:
    """Load, `merge_and_unload`, `save_pretrained`."""
    import peft
    import transformers
    import transformers.models.llama.modeling_llama

    def merge(output: Path) -> None:
        model = transformers.AutoModelForCausalLM.from_pretrained(base(root))
        merged = peft.PeftModel.from_pretrained(model, adapter(root)).merge_and_unload()
        merged.save_pretrained(output, max_shard_size="250MB")

    return _measured(merge, root)


def with_lorakit(root: Path) -> Outcome:
    """Run the verb, the proof that the result says the same included."""
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    import lorakit

    verb = lorakit.merge

    def merge(output: Path) -> None:
        verb(str(adapter(root)), output, base=str(base(root)))

    return _measured(merge, root)


def fold_alone(root: Path) -> Outcome:
    """Fold without the proof."""
    import transformers.models.llama.modeling_llama  # noqa: F401

    from lorakit.adapters.bundle import open_target
    from lorakit.adapters.merging import fold

    def merge(output: Path) -> None:
        output.mkdir()
        fold(open_target(str(adapter(root)), base=str(base(root))), output)

    return _measured(merge, root)


def copy(root: Path) -> Outcome:
    """Copy the base's folder: what no merge can be faster than."""

    def merge(output: Path) -> None:
        shutil.copytree(base(root), output)

    return replace(_measured(merge, root), output=None)


def _measured(merge: Callable[[Path], None], root: Path) -> Outcome:
    with tempfile.TemporaryDirectory(dir=root) as place:
        output = Path(place) / "merged"
        watch = Stopwatch()
        watch.start()
        merge(output)
        watch.stop()
        return replace(watch.outcome(1, above_imports=True), output=tensors_digest(output))


def tensors_digest(folder: Path) -> str:
    """Return a digest of the names, dtypes, shapes and bytes of all tensors, however they are spread over files."""
    found = []
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size))
            for name, tensor in header.items():
                if name == "__metadata__":
                    continue
                begin, end = tensor["data_offsets"]
                stream.seek(8 + size + begin)
                content = hashlib.sha256(stream.read(end - begin)).hexdigest()
                found.append((name, tensor["dtype"], tensor["shape"], content))
    return hashlib.sha256(json.dumps(sorted(found)).encode()).hexdigest()


ROWS = (
    Row(
        name="merge",
        title="Merge",
        work=(
            "A Llama of 1.07 GB in float32 (12 × 1024, five files) and LoRA of rank 16 on all 84 linear layers: from "
            "files to a merged model on disk, imports left out. `output` compares every tensor bit for bit."
        ),
        arms=(
            Arm("PEFT merge_and_unload + save_pretrained", with_peft, peer=True),
            Arm("lorakit merge", with_lorakit),
            Arm("lorakit merge, without its proof", fold_alone),
            Arm("plain copy of the base", copy),
        ),
        prepare=prepare,
        aim="6 times PEFT, at most 50 MB above the imports, bit for bit the same.",
    ),
)
