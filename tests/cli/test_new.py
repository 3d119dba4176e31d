"""`lorakit new`: the folder on stdout, the numbers and the next command on stderr."""

from transformers import PreTrainedModel
from typer.testing import CliRunner

from lorakit.cli.main import app
from lorakit.errors import CheckpointError

SMALL = ["--vocab-size", "270", "--layers", "1", "--hidden", "8", "--heads", "2", "--positions", "16"]


def invoke(tmp_path, *more):
    text = tmp_path / "text.txt"
    text.write_text("Some words, and some more words.\n" * 9, encoding="utf-8")
    out = tmp_path / "made"
    return out, CliRunner().invoke(app, ["new", "gpt2", "--tokenizer-from", str(text), "-o", str(out), *SMALL, *more])


def test_stdout_carries_the_folder_alone(tmp_path):
    out, result = invoke(tmp_path)
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    assert (out / "model.safetensors").is_file()


def test_what_a_library_says_while_it_saves_is_kept_from_stdout(tmp_path, monkeypatch):
    save = PreTrainedModel.save_pretrained

    def greeting(model, folder):
        print("Setting accelerator to CPU.")
        save(model, folder)

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", greeting)
    out, result = invoke(tmp_path)
    assert result.stdout == f"{out}\n"


def test_whoever_may_read_the_settings_may_read_the_weights(tmp_path):
    out, _ = invoke(tmp_path)
    assert (out / "model.safetensors").stat().st_mode == (out / "config.json").stat().st_mode


def test_stderr_tells_the_size_and_what_to_do_next(tmp_path):
    out, result = invoke(tmp_path)
    assert "weights" in result.stderr
    assert "tokens in the vocabulary" in result.stderr
    assert f"lorakit train --model {out} --data {tmp_path / 'text.txt'} --method full" in result.stderr


def test_the_next_command_can_be_typed_where_names_hold_spaces(tmp_path):
    (tmp_path / "my models").mkdir()
    out, result = invoke(tmp_path / "my models")
    assert f"lorakit train --model '{out}' --data '{tmp_path / 'my models' / 'text.txt'}' --method" in result.stderr


def test_a_second_run_asks_for_force(tmp_path):
    invoke(tmp_path)
    _, again = invoke(tmp_path)
    assert isinstance(again.exception, CheckpointError)
    assert "--force" in str(again.exception)
    assert invoke(tmp_path, "--force")[1].exit_code == 0
