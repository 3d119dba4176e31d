"""A folder for Ollama: what its Modelfile and llama.cpp make of a prompt is what lorakit makes of it."""

from __future__ import annotations

import json
import shutil

import pytest
from tokenizers import processors

from conftest import PAIRS, save_checkpoint, tiny_gpt2, tiny_llama, tiny_tokenizer
from go_templates import read_modelfile, written
from lorakit import generate
from lorakit.adapters.bundle import open_target
from lorakit.adapters.export import gguf_file
from lorakit.data.encoding import TextEncoder
from lorakit.errors import LorakitError
from lorakit.generation.settings import DecodingSettings
from lorakit.workflows.exporting import export
from runs import train
from sentence_pieces import sentence_piece_tokenizer

REASON = "llama.cpp is not installed: pip install 'lorakit[export]'"
pytest.importorskip("gguf", reason=REASON)
llama_cpp = pytest.importorskip("llama_cpp", reason=REASON)

TURNS = (
    "{% for m in messages %}{{ bos_token if loop.first }}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_tokenizer():
    """Begins each text with BOS, as its chat template does too, and ends turns with a token of their own."""
    tokenizer = tiny_tokenizer(chat_template=TURNS)
    tokenizer.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return tokenizer


def chat_checkpoint(folder):
    tokenizer = chat_tokenizer()
    model = tiny_llama(vocab_size=len(tokenizer), max_position_embeddings=128)
    model.generation_config.eos_token_id = [0, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    return save_checkpoint(folder, model, tokenizer)


def lines(file, rows):
    file.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return file


def chats():
    for pair in PAIRS:
        said = [("system", "Say where."), ("user", pair["prompt"]), ("assistant", pair["completion"])]
        yield {"messages": [{"role": role, "content": content} for role, content in said]}


@pytest.fixture(scope="module")
def prompts_run(tmp_path_factory):
    """GPT-2 that has learned the pairs by heart, behind a separator."""
    folder = tmp_path_factory.mktemp("prompts")
    base = save_checkpoint(folder / "base", tiny_gpt2())
    values = {"objective__separator": " =>", "optim__learning_rate": 1e-2, "train__max_steps": 120}
    return train(folder / "run", base, lines(folder / "rows.jsonl", PAIRS), method__name="full", **values).folder


@pytest.fixture(scope="module")
def chat_run(tmp_path_factory):
    """Llama that has learned conversations by heart."""
    folder = tmp_path_factory.mktemp("chats")
    values = {"optim__learning_rate": 1e-2, "train__max_steps": 120, "method__name": "full"}
    return train(
        folder / "run", chat_checkpoint(folder / "base"), lines(folder / "rows.jsonl", chats()), **values
    ).folder


def answered(folder, messages):
    """What Ollama does: the template's text, cut as a whole, continued by llama.cpp up to an end or a stop text."""
    told = read_modelfile((folder / "Modelfile").read_text("utf-8"))
    (prompt,) = written(told["TEMPLATE"][0], [messages])
    model = llama_cpp.Llama(str(folder / told["FROM"][0]), n_ctx=int(told["PARAMETER num_ctx"][0]), verbose=False)
    settings = {"temperature": float(told["PARAMETER temperature"][0]), "stop": told.get("PARAMETER stop")}
    done = model.create_completion(prompt, max_tokens=40, repeat_penalty=1.0, **settings)["choices"][0]
    return done["text"], done["finish_reason"]


def by_lorakit(folder, prompts):
    """What lorakit answers, each of which it ended itself."""
    done = generate(str(folder), prompts, DecodingSettings(max_new_tokens=40))
    assert {completion.finish_reason for completion in done} == {"eos"}
    return [(completion.text, "stop") for completion in done]


def test_a_run_of_prompts_answers_and_stops_in_llama_cpp_as_in_lorakit(tmp_path, prompts_run):
    export(str(prompts_run), "ollama", tmp_path / "answers", "f32")
    prompts = [pair["prompt"] for pair in PAIRS[:6]]
    found = [answered(tmp_path / "answers", [{"role": "user", "content": prompt}]) for prompt in prompts]
    assert found == by_lorakit(prompts_run, prompts)


def test_a_run_of_conversations_answers_and_stops_in_llama_cpp_as_in_lorakit(tmp_path, chat_run):
    export(str(chat_run), "ollama", tmp_path / "chats", "f32")
    conversations = [row["messages"][:-1] for row in list(chats())[:4]]
    conversations.append([*list(chats())[6]["messages"], conversations[0][1]])
    found = [answered(tmp_path / "chats", messages) for messages in conversations]
    assert found == by_lorakit(chat_run, conversations)


def test_the_modelfile_stops_at_the_text_of_each_end_and_samples_as_lorakit_does(tmp_path, chat_run):
    export(str(chat_run), "ollama", tmp_path / "chats")
    told = read_modelfile((tmp_path / "chats" / "Modelfile").read_text("utf-8"))
    del told["TEMPLATE"]
    assert told == {
        "FROM": ["./model.gguf"],
        "PARAMETER stop": ["<|endoftext|>", "<|im_end|>"],
        "PARAMETER num_ctx": ["128"],
        "PARAMETER temperature": ["0"],
        "PARAMETER repeat_penalty": ["1"],
    }


def test_stop_texts_of_the_manifest_and_the_licence_of_the_card_stand_in_the_modelfile(tmp_path, prompts_run):
    changed = shutil.copytree(prompts_run, tmp_path / "run")
    (changed / "hashes.json").unlink()
    manifest = json.loads((changed / "manifest.json").read_text("utf-8"))
    manifest["stop_strings"] = ["\n\nUser:", '"""', "End\u200b"]
    (changed / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (changed / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    done = export(str(changed), "ollama", tmp_path / "answers")
    told = read_modelfile((tmp_path / "answers" / "Modelfile").read_text("utf-8"))
    assert (told["PARAMETER stop"], told["LICENSE"]) == (["<|endoftext|>", "\n\nUser:"], ["mit"])
    assert [note for note in done.notes if "cannot hold" in note] == [
        f"a Modelfile cannot hold {text!r}, which ends an answer: give it as a stop text of each request."
        for text in ('"""', "End\u200b")
    ]


TOKENIZERS = {"byte-level": chat_tokenizer, "sentence pieces": sentence_piece_tokenizer}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_llama_cpp_cuts_what_the_template_writes_into_the_tokens_of_training(tmp_path, name):
    tokenizer = TOKENIZERS[name]()
    tokenizer.chat_template = TURNS
    base = save_checkpoint(tmp_path / "base", tiny_llama(vocab_size=len(tokenizer)), tokenizer)
    export(str(base), "ollama", tmp_path / "chats")
    messages = [*list(chats())[9]["messages"], list(chats())[1]["messages"][1]]
    told = read_modelfile((tmp_path / "chats" / "Modelfile").read_text("utf-8"))
    (text,) = written(told["TEMPLATE"][0], [messages])
    found = llama_cpp.Llama(str(tmp_path / "chats" / "model.gguf"), vocab_only=True, verbose=False)
    target = open_target(str(base))
    expected = TextEncoder(target.tokenizer, target.style).chat_prompt(messages)
    assert found.tokenize(text.encode(), special=True) == expected


def test_a_prompt_that_ollama_would_cut_otherwise_is_refused(tmp_path, gpt2_folder):
    rows = lines(tmp_path / "rows.jsonl", [{"prompt": f"n{one}", "completion": "Elm"} for one in range(20)])
    values = {"objective__separator": "<|endoftext|>", "train__max_steps": 1}
    folder = train(tmp_path / "run", gpt2_folder, rows, **values).folder
    with pytest.raises(LorakitError, match="become other tokens than in training"):
        export(str(folder), "ollama", tmp_path / "answers")
    assert not (tmp_path / "answers").exists()


def test_a_framing_that_ollama_cannot_say_is_refused_before_any_work(tmp_path, monkeypatch):
    tokenizer = tiny_tokenizer(chat_template="{{ messages | length }}" + TURNS)
    base = save_checkpoint(tmp_path / "base", tiny_llama(), tokenizer)
    monkeypatch.setattr(gguf_file, "write", None)
    with pytest.raises(LorakitError, match="Use --to gguf: the file holds the chat template itself"):
        export(str(base), "ollama", tmp_path / "chats")


@pytest.mark.parametrize(("name", "kind"), [("tiny-t5", "encoder-decoder"), ("tiny-bert", "encoder")])
def test_models_whose_prompts_are_not_gone_on_with_are_refused(tmp_path, name, kind):
    with pytest.raises(LorakitError, match=f"frames prompts of decoders, and {name} is an {kind}: use --to gguf"):
        export(name, "ollama", tmp_path / "model")


def test_an_interrupted_export_leaves_no_folder(tmp_path, llama_folder, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf_file, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        export(str(llama_folder), "ollama", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_only_force_replaces_a_folder_and_only_one_of_lorakit(tmp_path, llama_folder):
    for force in (False, True):
        export(str(llama_folder), "ollama", tmp_path / "model", force=force)
    with pytest.raises(LorakitError, match="exists and is not empty"):
        export(str(llama_folder), "ollama", tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    with pytest.raises(LorakitError, match="also holds notes"):
        export(str(llama_folder), "ollama", tmp_path / "model", force=True)


def test_the_folder_says_how_it_is_run(tmp_path, llama_folder):
    export(str(llama_folder), "ollama", tmp_path / "My model (8 bits)")
    told = (tmp_path / "My model (8 bits)" / "README.md").read_text("utf-8")
    assert "ollama create my-model-8-bits -f Modelfile" in told
