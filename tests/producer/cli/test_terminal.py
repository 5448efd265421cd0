"""What is printed holds no character that a terminal obeys; JSON says the same as ever."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from rich.text import Text

from labelmill.cli import context
from labelmill.cli.tables import print_details, print_rows
from labelmill.cli.terminal import PlainConsole
from labelmill.contracts.control_characters import visible, visible_json, visible_line

OBEYED = [
    *map(chr, (*range(9), *range(11, 32), *range(0x7F, 0xA0))),
    *map(chr, (0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF, 0xD800, 0xDFFF)),
]
HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b2J\x9d0;x\x9c\u202egpj\u2066\u2028\r\x08\x7f"
SHOWN = r"\x1b[2J\x1b]0;title\x07\x9b2J\x9d0;x\x9c\u202egpj\u2066\u2028\r\x08\x7f"


def _obeyed(text: str) -> list[str]:
    return [letter for letter in text if letter in set(OBEYED)]


@pytest.mark.parametrize("letter", OBEYED)
def test_a_character_that_a_terminal_obeys_is_shown(letter: str) -> None:
    shown = visible(f"a{letter}b\n\tc")
    assert shown.isprintable() is False
    assert shown == f"a{visible_line(letter)}b\n\tc"
    assert visible_line(letter).isprintable()
    assert visible_line(letter).startswith("\\")


@pytest.mark.parametrize("text", ["", "Grüße, 日本語 🎉", "family: 👩\u200d👩\u200d👧", "a\nb\tc", "עברית", r"\x1b"])
def test_other_characters_stay(text: str) -> None:
    assert visible(text) == text


def test_json_says_the_same() -> None:
    document = {HOSTILE: [HOSTILE, "日本語", 1.5, None]}
    written = orjson.dumps(json.loads(json.dumps(document)), option=orjson.OPT_INDENT_2).decode()
    assert _obeyed(visible_json(written)) == []
    assert json.loads(visible_json(written)) == document
    assert "日本語" in visible_json(written)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [30, 200])
def test_tables_details_and_messages_show_what_they_are_given(width: int, terminal: bool) -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, width=width, force_terminal=terminal, color_system=None)
    print_rows(console, ["id", HOSTILE], [[HOSTILE, HOSTILE], [Text("plain"), "x"]], flowing=[HOSTILE], title=HOSTILE)
    print_details(console, {HOSTILE: HOSTILE, "labels": {HOSTILE: {"train": {HOSTILE: 3}}}, "list": [HOSTILE]})
    console.print(HOSTILE, style="bold")
    assert _obeyed(file.getvalue()) == []
    assert "".join(SHOWN.split()) in "".join(file.getvalue().split())


def test_sentences_and_documents_of_commands_show_what_they_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    context.say("error", "red", f"there is no model {HOSTILE}")
    context.messages().print(f"{HOSTILE} rows")
    context.print_json({"label": HOSTILE})
    out, err = capsys.readouterr()
    assert _obeyed(out + err) == []
    assert json.loads(out) == {"label": HOSTILE}
    assert err.count(SHOWN) == 2


def test_lines_of_results_are_escaped_on_a_terminal_and_exact_in_a_pipe() -> None:
    line = orjson.dumps({"row": 0, "text": HOSTILE}) + b"\n"
    code = f"import sys; from labelmill.services.results.export import write_results as w; w([{line!r}], [], None)"
    piped = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
    assert piped == line
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stdout=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert _obeyed(shown.replace("\r\n", "")) == []
    assert json.loads(shown) == json.loads(line)


def test_a_command_on_a_terminal_writes_nothing_of_a_hostile_argument_as_it_is(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"LABELMILL_DATA_DIR": str(tmp_path), "TERM": "dumb", "LABELMILL_DEBUG": "1"}
    command = [
        sys.executable,
        "-m",
        "labelmill",
        "classify",
        f"{tmp_path}/{HOSTILE}.csv",
        "--model",
        HOSTILE,
        "--threshold",
        HOSTILE,
    ]
    subprocess.run(command, stdout=theirs, stderr=theirs, env=environment, check=False)
    os.close(theirs)
    said = os.read(ours, 10_000).decode().replace("\r\n", "\n")
    os.close(ours)
    assert _obeyed(said) == [], said
    assert "error:" in said
