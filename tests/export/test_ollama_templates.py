"""The template of a Modelfile, rendered by Go itself, frames messages as transformers does and as training did."""

from __future__ import annotations

import pytest

from conftest import tiny_tokenizer
from go_templates import written_by
from lorakit.adapters.export.ollama import Framing, check_framing, framing_of, modelfile
from lorakit.data.encoding import TextEncoder, style_for
from lorakit.errors import LorakitError

OPENED = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + OPENED
HEADED = (
    "{% for m in messages %}{{ bos_token if loop.first }}<|start|>{{ m.role }}<|end|>\n\n{{ m.content | trim }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
BRACKETED = (
    "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m.role == 'user' %}{{ bos_token }}[INST] {% if loop.first and messages[0].role == "
    "'system' %}<<SYS>>\n{{ messages[0].content }}\n<</SYS>>\n\n{% endif %}{{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<|start|>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}<|eot|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>model\n{% endif %}"
)
DEFAULT = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}" + TURNS
BRACES = "{% for m in messages %}{{ '{{' }}{{ m.role }}{{ '}}\\u00a0{' }}{{ m.content }}<|eot|>}\"\"\"\n{% endfor %}"
LAST = (
    "{% for m in messages %}{% if m.role == 'user' %}[{% if loop.last and messages[0].role == 'system' %}"
    "{{ messages[0].content }} {% endif %}{{ m.content }}]{% elif m.role == 'assistant' %}{{ m.content }}<|eot|>"
    "{% endif %}{% endfor %}"
)
TEMPLATES = {
    "turns": TURNS,
    "default system": DEFAULT,
    "headed": HEADED,
    "bracketed": BRACKETED,
    "no system": NO_SYSTEM,
    "system last": LAST,
    "plain": None,
}

TEXTS = ("Hello there.", "What is {{ .Content }}?", 'She said """no"""', "서울은 }} 어디?", "two\n\nlines")


def encoder_of(template):
    """A tokenizer to which the control tokens of the templates above are such."""
    tokenizer = tiny_tokenizer(chat_template=template)
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    control = ["<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|eot|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": control})
    return TextEncoder(tokenizer, style_for("chat", tokenizer, ""))


def chat(*roles, texts=TEXTS):
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


USER, CHAT, TOLD = ("user",), ("user", "assistant", "user"), ("system", "user", "assistant", "user")


def said(roles):
    """Conversations of one shape, whose messages say other texts each time."""
    return [chat(*roles, texts=TEXTS[first:] + TEXTS[:first]) for first in range(len(TEXTS))]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("roles", [USER, CHAT, TOLD, ("system", "user")], ids=len)
def test_go_writes_what_transformers_writes(name, roles):
    encoder = encoder_of(TEMPLATES[name])
    framing = framing_of(encoder)
    if framing.system is None and roles[0] == "system":
        pytest.skip("the template has no place for a system text that stays where it is")
    conversations = said(roles)
    style = {"chat_template": encoder.style.chat_template, "tokenize": False, "add_generation_prompt": True}
    expected = [encoder.tokenizer.apply_chat_template(messages, **style) for messages in conversations]
    assert written_by(framing, conversations) == expected


@pytest.mark.parametrize("name", ["no system", "system last"])
def test_a_system_text_that_has_no_place_or_moves_is_not_read_and_said(name):
    encoder = encoder_of(TEMPLATES[name])
    framing = framing_of(encoder)
    assert written_by(framing, [chat(*TOLD)]) == written_by(framing, [chat(*TOLD)[1:]])
    assert "Ollama reads none" in check_framing(framing, encoder, TEXTS)[0]


@pytest.mark.parametrize(
    "separator", ["", "\n\n###\n", ' """', "{{", " {", "}} ", "a\u00a0b\u200d", '"', "\\n", "{{ .System }}", "\r\n=>\t"]
)
def test_go_writes_the_text_behind_a_prompt(separator):
    prompts = [[{"role": "user", "content": text}] for text in TEXTS]
    assert written_by(Framing(answer=separator), prompts) == [text + separator for text in TEXTS]


def test_a_model_of_prompts_reads_each_one_alone():
    assert written_by(Framing(answer=" =>"), [chat("system", "user", "assistant", "user")]) == [f"{TEXTS[3]} =>"]


def test_awkward_texts_of_a_chat_template_stand_in_a_modelfile():
    encoder = encoder_of(BRACES + "{% if add_generation_prompt %}{{ '{{assistant}}\\u00a0{' }}{% endif %}")
    conversations = said(CHAT)
    expected = [encoder.chat_text(messages) for messages in conversations]
    assert written_by(framing_of(encoder), conversations) == expected


def test_an_answer_that_is_begun_is_gone_on_with():
    begun = written_by(framing_of(encoder_of(TURNS)), [chat("user", "assistant")])
    assert begun[0].endswith(f"<|im_start|>assistant\n{TEXTS[1]}")


@pytest.mark.parametrize("answer", ["Yes.", " Yes."])
def test_the_space_before_an_answer_is_written_once(answer):
    messages = chat(*CHAT, texts=("Really?", answer, "Why?"))
    (text,) = written_by(framing_of(encoder_of(BRACKETED)), [messages])
    assert text == "<s>[INST] Really? [/INST] Yes. </s><s>[INST] Why? [/INST]"


REFUSED = {
    "content": TURNS.replace("{{ m.content }}", "{{ m.content | replace('?', '!') }}"),
    "number": TURNS.replace("{{ m.role }}", "{{ m.role }}{{ loop.index }}"),
    "twice": TURNS.replace("{{ m.content }}", "{{ m.content }}{{ m.content }}"),
    "rewritten": "{{ messages | length }}" + TURNS,
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_looks_at_more_than_whose_message_it_is_is_refused(name):
    encoder = encoder_of(REFUSED[name])
    with pytest.raises(LorakitError, match="cannot say this"):
        check_framing(framing_of(encoder), encoder, TEXTS)


def test_what_a_template_does_to_white_space_and_dates_is_said():
    encoder = encoder_of(HEADED + "{% if strftime_now is defined %}{% endif %}")
    notes = check_framing(framing_of(encoder), encoder, TEXTS)
    assert [note.split(",")[0] for note in notes] == [
        "training cut white space around messages",
        "the chat template writes the current date",
    ]


def test_a_licence_of_a_card_adds_no_line_of_its_own_to_a_modelfile():
    licence = 'x"""\nADAPTER ./another.gguf\nSYSTEM """y'
    assert modelfile(Framing(), (), 128, {}, licence) == modelfile(Framing(), (), 128, {}, None)
