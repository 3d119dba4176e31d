import pytest
import torch

from conftest import tiny_gpt2, tiny_llama
from lorakit.generation.decoding import decode
from lorakit.generation.settings import DecodingSettings

PROMPTS = [[5, 17, 200], [8, 9, 33, 41, 7, 120, 300], [11], [250, 3, 9, 9, 12, 300, 31, 44, 71, 90, 13, 5]]


def tiny_opt():
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=400,
            hidden_size=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            word_embed_proj_dim=32,
            max_position_embeddings=64,
            init_std=0.2,
            dropout=0.0,
        )
    ).eval()


def tiny_gpt_neox():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=400,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            initializer_range=0.2,
        )
    ).eval()


def tiny_bloom():
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    return BloomForCausalLM(
        BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.2)
    ).eval()


def tiny_mistral():
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=400,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=6,
            initializer_range=0.2,
        )
    ).eval()


MODELS = {
    "gpt2": tiny_gpt2,
    "llama": tiny_llama,
    "opt": tiny_opt,
    "gpt_neox": tiny_gpt_neox,
    "bloom": tiny_bloom,
    "mistral": tiny_mistral,
}
GREEDY = {"max_new_tokens": 16}
DRAWN = {"max_new_tokens": 16, "temperature": 1.0, "top_p": 0.9, "num_samples": 2, "seed": 3}


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("name", MODELS)
def test_a_batch_writes_what_each_prompt_gets_alone(name, options):
    model = MODELS[name]()
    settings = DecodingSettings(**options)
    together = decode(model, PROMPTS, settings, eos_ids=range(1, 20))
    alone = [
        answer
        for number, prompt in enumerate(PROMPTS)
        for answer in decode(model, [prompt], settings, eos_ids=range(1, 20), numbers=[number])
    ]
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]
    assert [answer.log_probability for answer in together] == pytest.approx(
        [answer.log_probability for answer in alone], abs=1e-3
    )


def test_answers_of_the_batch_above_end_at_different_steps():
    # Guards the parity cases: rows leave the batch while others go on.
    answers = decode(tiny_gpt2(), PROMPTS, DecodingSettings(**DRAWN), eos_ids=range(1, 20))
    assert len({len(answer.ids) for answer in answers}) > 2


def test_the_samples_of_one_prompt_differ():
    answers = decode(tiny_gpt2(), PROMPTS[:1], DecodingSettings(**DRAWN), eos_ids=())
    assert answers[0].ids != answers[1].ids


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("name", MODELS)
def test_prompts_that_take_the_places_of_ended_answers_get_what_they_get_alone(name, options):
    model = MODELS[name]()
    settings = DecodingSettings(**options)
    prompts = [*PROMPTS, [7, 7], [301, 44], [12, 13, 14, 15, 16]]
    alone = decode(model, prompts, settings, eos_ids=range(1, 60), at_once=[1] * len(prompts))
    together = decode(model, prompts, settings, eos_ids=range(1, 60), at_once=[3] * len(prompts))
    assert [answer.ids for answer in together] == [answer.ids for answer in alone]


def test_a_place_is_taken_while_others_are_still_being_answered(monkeypatch):
    from lorakit.generation.context import Context

    joined = []
    whole = Context.join
    monkeypatch.setattr(Context, "join", lambda self, other: (joined.append(len(other.before)), whole(self, other)))
    answers = decode(
        tiny_gpt2(), [*PROMPTS, *PROMPTS], DecodingSettings(**DRAWN), eos_ids=range(1, 60), at_once=[3] * 8
    )
    assert joined
    assert len(answers) == 16
