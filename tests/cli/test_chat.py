import json
import re

import pytest
from parrot import CHAT_TEMPLATE, parrot
from typer.testing import CliRunner

from conftest import tiny_tokenizer
from lorakit.cli import screen
from lorakit.cli.main import app
from lorakit.errors import LorakitError
from lorakit.generation.settings import DecodingSettings
from lorakit.workflows.chatting import Conversation
from lorakit.workflows.generating import open_writer


def run(folder, *lines):
    result = CliRunner().invoke(app, ["chat", str(folder)], input="".join(f"{line}\n" for line in lines))
    assert result.exit_code == 0, result.exception
    return result


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    """Knows conversations and answers `ok` to `hi`."""
    after = len(tiny_tokenizer()("u:hia:").input_ids)
    return parrot(tmp_path_factory.mktemp("chatty") / "m", "ok", after=after, chat_template=CHAT_TEMPLATE)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Was trained on no conversations; what it says could harm a screen."""
    after = len(tiny_tokenizer()("hi").input_ids)
    return parrot(tmp_path_factory.mktemp("plain") / "m", "[/foo] \x1b[2J", after=after)


def conversation(folder, **options):
    return Conversation(open_writer(folder), DecodingSettings(**options))


def test_an_answer_goes_to_stdout(chatty):
    assert run(chatty, "hi").stdout == "ok\n"


def test_drafts_from_the_prompt_give_the_same_answers_and_are_counted_a_turn(gpt2_folder):
    said = "The quick The quick\n" * 2
    plain, drafted = (
        CliRunner().invoke(app, ["chat", str(gpt2_folder), "--max-new-tokens", "40", *options], input=said)
        for options in ([], ["--speculate", "prompt"])
    )
    assert drafted.stdout == plain.stdout
    counted = re.findall(r"· (\d+ of \d+) drafted tokens kept", drafted.stderr)
    assert len(counted) == 2
    assert counted[0] == counted[1]


def test_drafts_of_another_kind_are_refused_before_anything_is_loaded():
    result = CliRunner().invoke(app, ["chat", "no-such-model", "--speculate", "promt"])
    assert "Did you mean 'prompt'?" in str(result.exception)


def test_markup_in_an_answer_is_text(plain):
    assert run(plain, "hi").stdout == "[/foo] \x1b[2J\n"


def test_a_target_without_conversations_says_that_nothing_is_remembered(plain):
    assert "nothing is remembered" in run(plain).stderr


def test_a_target_without_conversations_gets_each_turn_alone(plain):
    assert run(plain, "hi", "hi").stdout == "[/foo] \x1b[2J\n" * 2


def test_the_end_of_the_input_leaves_with_0(chatty):
    assert run(chatty).exit_code == 0


def test_a_piped_line_that_is_not_utf_8_is_said_so_and_the_next_one_is_answered(chatty):
    result = CliRunner().invoke(app, ["chat", str(chatty), "-q"], input=b"caf\xe9\nhi\n")
    assert result.exit_code == 0
    assert result.stderr == "error: the line that was piped in is not UTF-8 (byte 4); convert it with iconv.\n"
    assert result.stdout == "ok\n"


def test_quit_leaves_before_the_lines_behind_it(chatty):
    assert run(chatty, "/quit", "hi").stdout == ""


def test_commands_are_known_in_capitals(chatty):
    assert run(chatty, "/QUIT", "hi").stdout == ""


@pytest.mark.parametrize("command", ["/quit", "/reset", "/help"])
def test_what_stands_behind_a_command_that_takes_nothing_is_told(chatty, command):
    result = run(chatty, f"{command} now", "hi")
    assert f"{command} stands alone; leave out 'now'" in result.stderr
    assert result.stdout == "ok\n"


def test_prose_breaks_between_words_on_a_terminal(monkeypatch):
    import io

    from rich.console import Console

    narrow = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=12, soft_wrap=True)
    monkeypatch.setattr(screen, "console", lambda: narrow)
    screen.say("several longer words", wrap=True)
    assert narrow.file.getvalue().split("\n") == ["several ", "longer words", ""]


def test_an_unknown_command_names_the_nearest(chatty):
    assert "Did you mean '/reset'?" in run(chatty, "/rest").stderr


def test_two_slashes_say_a_text_that_begins_with_one(chatty):
    assert run(chatty, "//x", "/save " + str(chatty.parent / "slash.jsonl")).exit_code == 0
    [row] = map(json.loads, (chatty.parent / "slash.jsonl").read_text(encoding="utf-8").splitlines())
    assert row["messages"][0] == {"role": "user", "content": "/x"}


def test_a_saved_conversation_is_a_row_to_train_on(chatty, tmp_path):
    run(chatty, "/system be kind", "hi", f"/save {tmp_path / 'c.jsonl'}")
    row = json.loads((tmp_path / "c.jsonl").read_text(encoding="utf-8"))
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]


def test_saving_replaces_no_file(chatty, tmp_path):
    (tmp_path / "c.jsonl").write_text("mine", encoding="utf-8")
    assert "exists" in run(chatty, "hi", f"/save {tmp_path / 'c.jsonl'}").stderr
    assert (tmp_path / "c.jsonl").read_text(encoding="utf-8") == "mine"


def test_earlier_turns_are_read_again(chatty):
    talk = conversation(chatty)
    talk.ask("hi")
    expected = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "x"},
    ]
    assert talk.ask("x").completion.prompt == expected


def test_reset_forgets_the_turns(chatty):
    talk = conversation(chatty)
    talk.ask("hi")
    talk.reset()
    assert talk.ask("x").completion.prompt == [{"role": "user", "content": "x"}]


def test_the_oldest_turns_are_dropped_when_the_positions_are_full(chatty):
    talk = conversation(chatty)
    replies = [talk.ask("a few words") for _ in range(6)]
    assert sum(reply.dropped for reply in replies) > 0
    assert all(len(talk.writer.encode(reply.completion.prompt)) <= 64 - 16 for reply in replies)
    assert replies[-1].completion.prompt[-1]["content"] == "a few words"


def test_dropped_turns_are_told(chatty):
    assert "left out" in run(chatty, *["a few words"] * 6).stderr


def test_a_turn_that_never_fits_is_an_error_and_the_conversation_goes_on(chatty):
    result = run(chatty, "word " * 100, "hi")
    assert "at most 64" in result.stderr
    assert result.stdout == "ok\n"


def test_an_interrupted_answer_is_kept_as_far_as_it_came(chatty):
    talk = conversation(chatty)

    def interrupt(piece):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        talk.ask("hi", interrupt)
    assert [said for said, _ in talk.turns] == ["hi"]
    assert talk.turns[0][1] in ("o", "ok")


def test_ctrl_c_stops_the_answer_and_not_the_program(chatty, monkeypatch):
    asked = []

    def ask(self, text, on_text=None):
        asked.append(text)
        raise KeyboardInterrupt

    monkeypatch.setattr(Conversation, "ask", ask)
    result = run(chatty, "one", "two")
    assert asked == ["one", "two"]
    assert "(stopped)" in result.stderr


def test_a_system_text_needs_a_target_with_conversations(plain):
    with pytest.raises(LorakitError, match="no place for a system text"):
        conversation(plain).tell_system("x")
