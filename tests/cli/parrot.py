"""A checkpoint that says one text and then its end-of-sequence token, whatever it is asked."""

from pathlib import Path

import torch

from conftest import save_checkpoint, tiny_gpt2, tiny_tokenizer

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)


def parrot(folder: Path, text: str, after: int = 1, chat_template: str | None = None) -> Path:
    """Write a GPT-2 whose next token depends on the position alone: the text follows a prompt of `after` tokens."""
    tokenizer = tiny_tokenizer(chat_template=chat_template)
    ids = [*tokenizer(text).input_ids, tokenizer.eos_token_id]
    positions = 64
    assert after - 1 + len(ids) <= positions, "the text is too long for the positions"
    model = tiny_gpt2(n_embd=positions, tie_word_embeddings=False)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.zero_()
        model.transformer.ln_f.weight.fill_(1.0)
        # What stands at a position is the position's own direction, which the head turns into the token of the script.
        model.transformer.wpe.weight.copy_(torch.eye(positions))
        for position in range(positions):
            step = position - (after - 1)
            model.lm_head.weight[ids[step] if 0 <= step < len(ids) else tokenizer.eos_token_id, position] = 10.0
    return save_checkpoint(folder, model, tokenizer)
