import json
import os
import re
import subprocess
import sys

import pytest
from parrot import CHAT_TEMPLATE, parrot
from typer.testing import CliRunner

import lorakit
from conftest import tiny_gpt2, tiny_tokenizer
from lorakit.adapters.manifest import Base, Manifest, write_manifest
from lorakit.cli.main import app
from lorakit.errors import LorakitError
from lorakit.generation.decoding import decode
from lorakit.generation.settings import DecodingSettings
from lorakit.types import PromptStyle

HOSTILE = "[/foo] [bold]x[/] list[int] \x1b[2J\x1b]0;p\x07 \x9b31m \u202ea\r\x1b[A"


def run(*arguments, stdin=None):
    return CliRunner().invoke(app, ["generate", *map(str, arguments)], input=stdin)


def answered(result):
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 0, result.stderr
    return result.stdout


def framed(folder, **manifest):
    """Make a whole trained model of a checkpoint folder."""
    base = Base(identity="local:x", fingerprint="sha256:" + "0" * 64, model_type="gpt2")
    write_manifest(folder, Manifest(form="full", base=base, **manifest))
    return folder


def test_the_answer_is_all_that_goes_to_stdout(tmp_path):
    result = run(parrot(tmp_path / "m", "한국어 🙂 ok"), "")
    assert answered(result) == "한국어 🙂 ok\n"
    assert "stop: end of sequence" in result.stderr


def test_quiet_says_nothing_beside_the_answer(tmp_path):
    assert run(parrot(tmp_path / "m", "hello"), "", "-q").stderr == ""


def test_a_pipe_gets_hostile_text_exactly(tmp_path):
    folder = parrot(tmp_path / "m", HOSTILE)
    result = run(folder, "")
    answered(result)
    assert result.stdout_bytes.decode() == HOSTILE + "\n"


def test_json_gives_hostile_text_back(tmp_path):
    assert json.loads(answered(run(parrot(tmp_path / "m", HOSTILE), "", "--json")))["text"] == HOSTILE


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_no_control_characters(tmp_path):
    import pty

    folder = parrot(tmp_path / "m", HOSTILE)
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "lorakit", "generate", str(folder), "", "-q"]
    finished = subprocess.run(command, stdout=slave, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)
    os.close(slave)
    shown = os.read(master, 65536).decode().replace("\r\n", "\n")
    assert finished.returncode == 0, finished.stderr
    assert shown == "[/foo] [bold]x[/] list[int] \\x1b[2J\\x1b]0;p\\x07 \\x9b31m \\u202ea\\x0d\\x1b[A\n"


def test_a_stop_text_is_not_part_of_the_answer(tmp_path):
    result = run(parrot(tmp_path / "m", "one two three"), "", "--stop", "o t", "--stop", "nothing")
    assert answered(result) == "one tw\n"
    assert "stop: stop text" in result.stderr


def test_json_tells_tokens_reason_and_log_probability(gpt2_folder):
    told = json.loads(answered(run(gpt2_folder, "The quick", "--max-new-tokens", "5", "--json")))
    tokenizer = tiny_tokenizer()
    [expected] = decode(
        tiny_gpt2(), [tokenizer("The quick").input_ids], DecodingSettings(max_new_tokens=5), {0}, tokenizer
    )
    assert told == {
        "text": expected.text,
        "tokens": 5,
        "finish_reason": "length",
        "log_probability": pytest.approx(expected.log_probability, abs=1e-4),
    }


def test_a_piped_prompt_loses_its_last_newline_alone(gpt2_folder):
    piped = answered(run(gpt2_folder, "--max-new-tokens", "5", stdin="two\nlines\n"))
    assert piped == answered(run(gpt2_folder, "two\nlines", "--max-new-tokens", "5"))


def test_an_empty_prompt_starts_from_the_start_token(gpt2_folder):
    tokenizer = tiny_tokenizer()
    [expected] = decode(tiny_gpt2(), [[0]], DecodingSettings(max_new_tokens=5), {0}, tokenizer)
    assert answered(run(gpt2_folder, "", "--max-new-tokens", "5")) == expected.text + "\n"


def test_a_trained_model_frames_the_prompt_as_in_training(tmp_path):
    tokenizer = tiny_tokenizer()
    after = len(tokenizer("q ->").input_ids)
    style = PromptStyle("prompt_completion", separator=" ->")
    folder = framed(parrot(tmp_path / "m", "the answer", after=after), style=style)
    assert answered(run(folder, "q")) == "the answer\n"
    assert answered(run(folder, "q", "--raw")) != "the answer\n"


def test_the_stop_texts_of_training_hold(tmp_path):
    folder = framed(parrot(tmp_path / "m", "yes|no"), stop_strings=("|",))
    assert answered(run(folder, "")) == "yes\n"


def test_steps_show_what_was_read_the_candidates_and_the_choice(tmp_path):
    shown = answered(run(parrot(tmp_path / "m", "a b\n"), "", "--show-steps")).splitlines()
    assert shown[0].split() == ["step", "reads", "…", "most", "probable", "next", "takes"]
    lines = shown[1 : shown.index("")]
    steps = [line.split() for line in lines]
    assert "".join(step[-1] for step in steps) == "a␠b␤<eos>"
    assert steps[-1][1].endswith("a␠b␤")
    assert [len(re.findall(r"\d %", line)) for line in lines] == [5] * len(lines)


def test_steps_stand_in_the_json_with_probabilities(gpt2_folder):
    told = json.loads(answered(run(gpt2_folder, "The", "--max-new-tokens", "3", "--json", "--show-steps")))
    assert len(told["steps"]) == 3
    assert all(step["probability"] == step["candidates"][0]["probability"] <= 1 for step in told["steps"])


def test_rows_keep_their_order_and_their_other_columns(gpt2_folder, tmp_path):
    rows = [{"prompt": "a long prompt of several words", "id": 7}, "short", {"prompt": "", "note": "빈"}]
    source, written = tmp_path / "p.jsonl", tmp_path / "answers.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    answered(run(gpt2_folder, "--input", source, "-o", written, "--max-new-tokens", "5"))
    lines = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
    assert [(line["prompt"], line.get("id"), line.get("note")) for line in lines] == [
        ("a long prompt of several words", 7, None),
        ("short", None, None),
        ("", None, "빈"),
    ]
    assert [line["text"] + "\n" for line in lines] == [
        answered(run(gpt2_folder, line["prompt"], "--max-new-tokens", "5")) for line in lines
    ]


def test_lines_of_text_are_prompts_and_blank_ones_are_told(gpt2_folder, tmp_path):
    source = tmp_path / "p.txt"
    source.write_text("one\n\ntwo\n", encoding="utf-8")
    result = run(gpt2_folder, "--input", source, "--max-new-tokens", "2")
    assert [json.loads(line)["prompt"] for line in answered(result).splitlines()] == ["one", "two"]
    assert "1 blank line skipped" in result.stderr


def test_messages_are_framed_by_the_chat_template(tmp_path):
    prompt = tiny_tokenizer()("u:hia:").input_ids
    folder = parrot(tmp_path / "m", "hello", after=len(prompt), chat_template=CHAT_TEMPLATE)
    source = tmp_path / "p.jsonl"
    source.write_text('{"messages": [{"role": "user", "content": "hi"}]}\n', encoding="utf-8")
    assert json.loads(answered(run(folder, "--input", source)))["text"] == "hello"


def test_an_existing_output_stays_unless_forced(gpt2_folder, tmp_path):
    source, written = tmp_path / "p.txt", tmp_path / "answers.jsonl"
    source.write_text("one\n", encoding="utf-8")
    written.write_text("mine", encoding="utf-8")
    result = run(gpt2_folder, "--input", source, "-o", written)
    assert isinstance(result.exception, LorakitError)
    assert "--force" in str(result.exception)
    assert written.read_text(encoding="utf-8") == "mine"
    answered(run(gpt2_folder, "--input", source, "-o", written, "--force", "--max-new-tokens", "1"))
    assert json.loads(written.read_text(encoding="utf-8"))["prompt"] == "one"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "column 2"),
        ("[1]", "either a prompt or messages"),
        ('{"question": "x"}', "either a prompt or messages"),
        ('{"prompt": 3}', "prompt must be a text"),
        ('{"prompt": "x", "text": "y"}', "'text' would be replaced"),
        ('{"prompt": "\\ud800"}', "half of a character pair"),
        ('{"prompt": "x", "n": NaN}', "NaN"),
        ('{"messages": []}', "at least one message"),
        ('{"messages": [{"role": "user"}]}', "content"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "no chat template"),
        ('{"prompt": "' + "word " * 100 + '"}', "at most 64"),
    ],
)
def test_a_row_that_is_no_prompt_is_told_with_its_line(gpt2_folder, tmp_path, line, problem):
    source = tmp_path / "p.jsonl"
    source.write_text(f'"fine"\n{line}\n', encoding="utf-8")
    result = run(gpt2_folder, "--input", source, "-o", tmp_path / "answers.jsonl")
    assert isinstance(result.exception, LorakitError)
    assert "p.jsonl line 2" in str(result.exception)
    assert problem in str(result.exception)
    assert not (tmp_path / "answers.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["x", "--input", "p.txt"], "give one of them"),
        (["x", "--output", "a.jsonl"], "--output"),
        (["x", "--show-steps", "--num-samples", "2", "--temperature", "1"], "--show-steps"),
        (["x", "--show-steps", "--num-beams", "2"], "beam"),
        (["x", "--top-k", "3"], "temperature"),
        (["word " * 100], "at most 64"),
    ],
)
def test_options_that_cannot_be_meant_together_are_refused(gpt2_folder, options, problem):
    result = run(gpt2_folder, *options)
    assert isinstance(result.exception, LorakitError)
    assert problem in str(result.exception)


def test_the_python_call_gives_what_the_command_prints(gpt2_folder):
    [completion] = lorakit.generate(gpt2_folder, "The quick", DecodingSettings(max_new_tokens=6))
    assert completion.text + "\n" == answered(run(gpt2_folder, "The quick", "--max-new-tokens", "6"))


def test_beams_are_reached_from_the_command(gpt2_folder):
    greedy = json.loads(answered(run(gpt2_folder, "The", "--max-new-tokens", "8", "--json")))
    beams = json.loads(answered(run(gpt2_folder, "The", "--max-new-tokens", "8", "--json", "--num-beams", "4")))
    assert beams["log_probability"] > greedy["log_probability"]


def test_one_token_is_counted_in_the_singular(gpt2_folder):
    assert "1 token ·" in run(gpt2_folder, "The", "--max-new-tokens", "1").stderr


def test_weights_in_8_bits_tell_what_they_change(tmp_path):
    folder = framed(parrot(tmp_path / "m", "hello there"), eos_ids=(0,))
    result = run(folder, "hello", "--quantize", "int8", "--max-new-tokens", "4")
    answered(result)
    assert re.search(r"weights in 8 bits; loss of the prompts \d+\.\d{3} → \d+\.\d{3} nats a token", result.stderr)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--quantize", "int4"], 'quantize is "int4"; must be int8'),
        (["--quantize", "int8", "--dtype", "bfloat16"], "leave out --device and --dtype"),
    ],
)
def test_weights_that_cannot_be_rounded_so_are_refused(tmp_path, options, said):
    result = run(parrot(tmp_path / "m", "hello"), "", *options)
    assert result.exit_code == 1
    assert said in str(result.exception)


def test_the_fast_paths_write_what_the_plain_ones_do(tmp_path):
    folder = parrot(tmp_path / "m", "all the same")
    assert answered(run(folder, "")) == answered(run(folder, "", "--no-fast"))


def test_drafts_from_the_prompt_write_the_same_and_say_how_many_were_kept(gpt2_folder):
    plain = answered(run(gpt2_folder, "The quick The quick", "--max-new-tokens", "40"))
    drafted = run(gpt2_folder, "The quick The quick", "--max-new-tokens", "40", "--speculate", "prompt")
    assert answered(drafted) == plain
    assert re.search(r"· \d+ of \d+ drafted tokens kept \(\d+%\)", drafted.stderr)


def test_the_fast_paths_that_were_taken_stand_behind_the_text(gpt2_folder):
    assert "· GELU in one kernel" in run(gpt2_folder, "The").stderr
    assert "GELU" not in run(gpt2_folder, "The", "--no-fast").stderr


def test_captured_steps_are_counted_behind_the_text_and_their_absence_is_explained(gpt2_folder, tmp_path, monkeypatch):
    from tests.model_types import tiny_model
    from transformers import AutoModelForCausalLM

    from lorakit.workflows import speeding

    # What a GPU takes, kernel by kernel.
    monkeypatch.setattr(speeding, "_on_a_processor", lambda model, quantized: speeding._on_a_gpu(model))
    options = ("The", "--max-new-tokens", "9")
    captured = run(gpt2_folder, *options)
    assert answered(captured) == answered(run(gpt2_folder, *options, "--no-fast"))
    # The first token comes from reading the prompt.
    assert captured.stderr.rstrip().endswith("· 8 captured steps")
    tiny_model("gpt_neo", AutoModelForCausalLM, vocab_size=400).save_pretrained(tmp_path / "neo")
    tiny_tokenizer().save_pretrained(tmp_path / "neo")
    refused = run(tmp_path / "neo", *options)
    assert "· no captured steps: type gpt_neo takes no buffers of fixed size" in refused.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--speculate", "promt"], "Did you mean 'prompt'?"),
        (["--speculate", "prompt", "--num-beams", "2"], "leave out one of the two"),
        (["--speculate", "prompt", "--num-samples", "2", "--temperature", "1"], "leave out one of the two"),
    ],
)
def test_drafts_that_cannot_be_written_are_refused_before_anything_is_loaded(options, said):
    result = run("no-such-model", "a", *options)
    assert result.exit_code == 1
    assert said in str(result.exception)


@pytest.mark.parametrize(("short", "long"), [("bf16", "bfloat16"), ("fp32", "float32")])
def test_a_dtype_may_be_given_by_its_short_name(gpt2_folder, short, long):
    def text(dtype):
        return answered(run(gpt2_folder, "The", "--max-new-tokens", "8", "--dtype", dtype))

    assert text(short) == text(long)
