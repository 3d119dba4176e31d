"""A tokenizer of SentencePiece's kind, as transformers converts them: BPE over characters, or bytes."""

from __future__ import annotations

import json

from conftest import SENTENCES


def sentence_piece_tokenizer(vocab_size: int = 500):
    """Train one on the sentences; every pair that gives a piece is a merge, in the order of the pieces."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=vocab_size - 259, show_progress=False))
    told = json.loads(trained.to_str())["model"]
    pieces = ["".join(pair) for pair in told["merges"]]
    characters = sorted({character for sentence in SENTENCES for character in sentence.replace(" ", "▁")})
    order = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *dict.fromkeys(pieces), *characters]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(order))}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in dict.fromkeys(pieces)
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
