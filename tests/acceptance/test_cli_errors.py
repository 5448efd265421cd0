"""What a person types wrongly, or what is down: one clear sentence on stderr and the documented exit code.

No stack runs here: a real SQLite file, and addresses where nothing listens.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from labelmill.cli import main
from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.messages import PREPARE, JobMessage
from labelmill.contracts.queue import MessageSender
from labelmill.contracts.settings import load_settings

pytestmark = pytest.mark.acceptance

_NOBODY_REDIS = "redis://127.0.0.1:1/0"
_ROWS = [
    {"id": str(n), "text": f"{word} number {n}", "intent": word} for n in range(20) for word in ("play", "stop", "ask")
]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str
    took_s: float

    @property
    def sentence(self) -> str:
        """The one line on stderr that says what is wrong."""
        (line,) = (line for line in self.err.splitlines() if line.startswith("error: "))
        return line


Run = Callable[..., Ended]


@pytest.fixture
def run(sqlite_template: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in a folder with some files, a fresh database and a dead Redis."""
    shutil.copy(sqlite_template, "jobs.db")
    _write_files()

    def run_command(*arguments: str, stdin: str = "", **environment: str) -> Ended:
        with monkeypatch.context() as patch:
            patch.setenv("LABELMILL_DATABASE_URL", "sqlite:///jobs.db")
            patch.setenv("LABELMILL_BROKER_URL", _NOBODY_REDIS)
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["labelmill", *arguments])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            started = time.monotonic()
            with pytest.raises(SystemExit) as ended:
                main.run()
            took_s = time.monotonic() - started
        out, err = capsys.readouterr()
        assert "Traceback" not in err, err
        assert "\x1b" not in out + err, "no terminal, no escape codes"
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, out, err, took_s)

    return run_command


def _write_files() -> None:
    good = "".join(json.dumps(row) + "\n" for row in _ROWS)
    Path("good.jsonl").write_text(good)
    Path("empty.jsonl").touch()
    Path("header.csv").write_text("id,text,intent\n")
    Path("twice.csv").write_text("text,text\na,b\n")
    Path("latin.csv").write_bytes(b"text,intent\ncaf\xe9,a\n")
    Path("broken.jsonl").write_text("not json\n{\n")
    Path("array.jsonl").write_text('[{"text": "a"}]\n')
    Path("picture.png").write_bytes(b"\x89PNG\r\n")
    Path("fake.parquet").write_bytes(b"PAR1 and no more")
    Path("cut.jsonl.gz").write_bytes(gzip.compress(good.encode())[:60])
    Path("folder").mkdir()


_PREPARE = ("--target", "intent=intent")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nope.jsonl", "there is no file nope.jsonl"),
        ("*.nope", "no file matches *.nope"),
        ("folder", "folder is a folder"),
        ("empty.jsonl", "empty.jsonl holds no rows"),
        ("header.csv", "header.csv holds no rows"),
        ("twice.csv", "two columns named 'text'"),
        ("latin.csv", "line 2: not UTF-8"),
        ("broken.jsonl", "the first problem is at line 1: broken JSON"),
        ("array.jsonl", "holds a JSON array; write one JSON object on each line"),
        ("picture.png", "in no format known here"),
        ("fake.parquet", "fake.parquet cannot be read as Parquet"),
        ("cut.jsonl.gz", "cut.jsonl.gz is damaged"),
        ("-", "prepare reads files, not standard input"),
    ],
)
def test_a_source_that_cannot_be_prepared_is_refused_at_submission(run: Run, source: str, sentence: str) -> None:
    ended = run("prepare", "data", source, *_PREPARE)
    assert ended.code == 2
    assert sentence in ended.sentence
    assert not ended.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--target", "intent=label"), "no column 'label'; it has 'id', 'text', 'intent'"),
        ((*_PREPARE, "--text", "body"), "no column 'body'; it has 'id', 'text', 'intent'"),
        ((*_PREPARE, "--where", "lang=en"), "no column 'lang'"),
        ((), "name at least one target"),
        (("--target", "intent"), "is not NAME=COLUMN"),
        ((*_PREPARE, "--split", "80/20"), "is not three numbers such as 80/10/10"),
        ((*_PREPARE, "--split", "0/0/0"), "not all 0"),
        ((*_PREPARE, "--split", "nan/1/1"), "parts must be 0 or more"),
        ((*_PREPARE, "--seed", "-1"), "--seed must be"),
        ((*_PREPARE, "--min-per-label", "0"), "--min-per-label"),
        ((*_PREPARE, "--min-per-label", "9", "--max-per-label", "3"), "is above --max-per-label"),
        ((*_PREPARE, "--format", "factory"), "no --target"),
        ((*_PREPARE, "--on-bad-row", "maybe"), "'fail', 'skip'"),
        ((*_PREPARE, "--seed", "many"), "Invalid value for '--seed'"),
    ],
)
def test_options_of_prepare_are_checked_at_submission(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    ended = run("prepare", "data", "good.jsonl", *arguments)
    assert ended.code == 2
    assert sentence in ended.sentence


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("prepare a/b good.jsonl --target intent=intent", "'a/b' is no name for a dataset"),
        ("train intents --dataset nope --method factory", "no dataset 'nope' is ready"),
        ("train intents --dataset nope", "no dataset 'nope' is ready"),
        ("train intents --dataset nope --method magic", "--method is one of embedding, factory, prompt"),
        ("train intents --dataset nope --steps 5", "--steps goes with --method factory"),
        ("train intents --dataset nope --method factory --target-weight intent", "is no NAME=VALUE"),
        ("train intents --dataset nope --method prompt --describe nope.json", "No such file"),
        ("train in/tents --dataset nope --method factory", "is no name for a model"),
        ("train intents --dataset nope --method factory --max-cost=-1", "--max-cost must be 0 or more"),
        ("train intents --dataset nope --method factory --learning-rate nan", "--learning-rate"),
        ("classify good.jsonl --model nope", "there is no model 'nope'"),
        ("classify good.jsonl --model nope@2", "there is no model nope@2"),
        ("classify good.jsonl --model nope@x", "write nope@1"),
        ("classify nope.jsonl --model ft:classifier:x", "there is no file nope.jsonl"),
        ("classify empty.jsonl --model ft:classifier:x", "holds no rows"),
        ("classify - --model ft:classifier:x", "holds no rows"),
        ("classify good.jsonl --model ft:classifier:x --text body", "no column 'body'; it has 'id', 'text', 'intent'"),
        ("classify good.jsonl --model ft:classifier:x --id key", "no column 'key'"),
        ("classify good.jsonl --model ft:classifier:x --threshold 1.5", "not between 0 and 1"),
        ("classify good.jsonl --model ft:classifier:x --threshold nan", "not between 0 and 1"),
        ("classify good.jsonl --model ft:classifier:x --threshold intent=high", "TARGET=NUMBER"),
        ("classify good.jsonl --model ft:classifier:x --priority urgent", "high, normal, low"),
        ("classify good.jsonl --model ft:classifier:x -o rows.csv", "-o goes with --wait"),
        ("classify good.jsonl --model ft:classifier:x --wait -o rows.txt", ".jsonl, .csv, .parquet"),
        ("classify good.jsonl --model ft:classifier:x --wait -o nowhere/rows.csv", "there is no folder nowhere"),
        ("evaluate nope --dataset nope", "there is no model 'nope'"),
        ("models promote nope", "name the version: nope@1"),
        ("models delete nope@1", "nope@1"),
        ("results batch_0123456789abcdef -o nowhere/rows.csv", "there is no folder nowhere"),
        ("nonsense", "No such command 'nonsense'"),
        ("status --bogus", "No such option: --bogus"),
        ("classify", "Missing argument"),
    ],
)
def test_what_is_wrong_with_a_command_is_said_in_one_sentence(run: Run, command: str, sentence: str) -> None:
    ended = run(*command.split())
    assert ended.code == 2
    assert sentence in ended.sentence
    assert not ended.out


@pytest.mark.parametrize("job_id", ["batch_0123456789abcdef", "prep_0123456789abcdef", "rubbish", "[red]", ""])
@pytest.mark.parametrize("command", ["status", "watch", "results", "cancel", "retry", "approve"])
def test_an_id_that_nothing_has_is_named(run: Run, command: str, job_id: str) -> None:
    if (command, job_id.partition("_")[0]) == ("cancel", "prep"):
        pytest.skip("datasets are not cancelled, known or not")
    ended = run(command, job_id)
    assert ended.code == 2
    assert repr(job_id) in ended.sentence


@pytest.mark.parametrize("command", ["status", "models", "datasets", "classify good.jsonl --model intents"])
def test_a_database_that_is_down_is_exit_code_7(run: Run, command: str) -> None:
    ended = run(*command.split(), LABELMILL_DATABASE_URL="postgresql://somebody:secret@127.0.0.1:1/x")
    assert ended.code == 7
    assert "the database cannot be used: " in ended.sentence
    assert "secret" not in ended.err
    assert ended.took_s < 20


@pytest.mark.parametrize("command", ["status", "db upgrade"])
def test_a_file_that_is_no_database_is_exit_code_7(run: Run, command: str) -> None:
    Path("letter.db").write_text("Dear database, " * 100)
    ended = run(*command.split(), LABELMILL_DATABASE_URL="sqlite:///letter.db")
    assert ended.code == 7
    assert "file is not a database" in ended.sentence


def test_missing_tables_name_the_command_that_makes_them(run: Run) -> None:
    fresh = {"LABELMILL_DATABASE_URL": "sqlite:///fresh.db"}
    ended = run("status", **fresh)
    assert ended.code == 7
    assert "missing: run `labelmill db upgrade`" in ended.sentence
    assert run("db", "upgrade", **fresh).code == 0
    assert run("db", "upgrade", **fresh).code == 0
    assert run("status", **fresh).code == 0


@pytest.mark.parametrize(
    ("revision", "command", "sentence"),
    [
        ("9999", "status", "which a newer Labelmill made: upgrade this one"),
        ("9999", "db upgrade", "which a newer Labelmill made: upgrade this one"),
    ],
)
def test_tables_of_another_version_are_refused(run: Run, revision: str, command: str, sentence: str) -> None:
    connection = sqlite3.connect("jobs.db")
    connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.commit()
    connection.close()
    ended = run(*command.split())
    assert ended.code == 7
    assert sentence in ended.sentence


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("LABELMILL_TEXTS_PER_REQUEST", "many", "setting LABELMILL_TEXTS_PER_REQUEST"),
        ("LABELMILL_LEASE_S", "-1", "setting LABELMILL_LEASE_S"),
        ("LABELMILL_REQUESTS_PER_SECOND", "0", "setting LABELMILL_REQUESTS_PER_SECOND"),
        ("LABELMILL_BROKER_URL", "localhost", "write a Redis URL"),
        ("LABELMILL_BROKER_URL", "amqp://secret@localhost//", "write a Redis URL"),
        ("LABELMILL_DATABASE_URL", "rubbish", "the database URL cannot be read"),
        ("LABELMILL_DATABASE_URL", "mysql://secret@localhost/x", "must be SQLite or PostgreSQL, not mysql"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named_and_its_value_is_not(
    run: Run, variable: str, value: str, sentence: str
) -> None:
    ended = run("status", **{variable: value})
    assert ended.code == 2
    assert sentence in ended.sentence
    assert "secret" not in ended.err


def test_an_env_file_that_is_no_text_is_named(run: Run) -> None:
    Path(".env").write_bytes(b"LABELMILL_DATA_DIR=caf\xe9\n")
    ended = run("status")
    assert ended.code == 2
    assert ".env cannot be read" in ended.sentence


@pytest.mark.parametrize(
    "command",
    ["prepare data good.jsonl --target intent=intent", "classify good.jsonl --model ft:classifier:x --id id"],
)
def test_with_redis_down_a_submission_is_accepted_with_a_warning_and_soon(run: Run, command: str) -> None:
    ended = run(*command.split())
    assert ended.code == 0
    assert json.loads(ended.out).keys() == {"id", "kind", "state"}
    assert "warning: Redis cannot be reached" in ended.err
    (job,) = json.loads(run("status", "--json").out)
    assert job["id"] == json.loads(ended.out)["id"]


def test_nobody_waits_long_for_a_redis_that_is_down() -> None:
    import celery  # noqa: F401, PLC0415 - so that its import is not timed

    sender = MessageSender.connect(load_settings(broker_url=_NOBODY_REDIS))
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        sender.send(PREPARE, [JobMessage(job_id="prep_0123456789abcdef")])
    assert time.monotonic() - started < 4  # some 0.2 s on an idle machine; kombu, left alone, takes 6


def test_stdin_of_a_windows_program_is_read(run: Run) -> None:
    lines = "\ufeff" + "".join(json.dumps(row) + "\r\n" for row in _ROWS)
    ended = run("classify", "-", "--model", "ft:classifier:x", stdin=lines)
    assert ended.code == 0
    document = json.loads(run("status", json.loads(ended.out)["id"], "--json").out)
    assert document["rows"]["submitted"] == len(_ROWS)


def test_a_bad_line_on_stdin_is_named(run: Run) -> None:
    ended = run("classify", "-", "--model", "ft:classifier:x", stdin='{"text": "a"}\n{"text": \n')
    assert ended.code == 2
    assert "<stdin>:2: broken JSON" in ended.sentence


@pytest.mark.parametrize("command", ["status", "datasets", "models"])
def test_json_output_is_one_document(run: Run, command: str) -> None:
    assert json.loads(run(command, "--json").out) == []
    assert run(command).code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_full_disk_is_one_sentence(run: Run) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "labelmill", "status", "--json"], stdout=full, stderr=subprocess.PIPE, text=True,
            check=False, timeout=60, env={**os.environ, "LABELMILL_DATABASE_URL": "sqlite:///jobs.db"},
        )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == ["error: No space left on device"]


def test_a_reader_that_leaves_early_sees_no_fault(run: Run) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "labelmill", "status"], stdout=writing, stderr=subprocess.PIPE, text=True,
        check=False, timeout=60, env={**os.environ, "LABELMILL_DATABASE_URL": "sqlite:///jobs.db"},
    )  # fmt: skip
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_nobody_foresaw_is_one_sentence_and_its_traceback_is_for_the_asking(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Any:
        raise ZeroDivisionError("two lines\nof [red]trouble")

    monkeypatch.setattr(main, "build_app", broken)
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said == (
        "error: something unforeseen went wrong (ZeroDivisionError: two lines); LABELMILL_DEBUG=1 shows where\n"
    )
    monkeypatch.setenv("LABELMILL_DEBUG", "1")
    with pytest.raises(SystemExit):
        main.run()
    assert "Traceback" in capsys.readouterr().err


def test_every_command_explains_itself(run: Run) -> None:
    top = run("--help")
    assert top.code == 0
    commands = ["prepare", "datasets", "train", "approve", "classify", "evaluate", "status", "watch", "results"]
    commands += ["cancel", "retry", "models", "db", "up", "demo", "emulator"]
    for command in commands:
        assert command in top.out
    for command in ("classify", "results", "models promote", "db upgrade"):
        assert "Usage: labelmill" in run(*command.split(), "-h").out


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from _commands(command, (*path, name))


def test_the_help_of_every_command_lists_its_options(run: Run) -> None:
    commands = list(_commands(typer.main.get_command(main.build_app())))
    assert len(commands) > 20
    for command in commands:
        shown = run(*command, "--help")
        assert (shown.code, shown.err) == (0, ""), command
        assert "--help" in shown.out, command


def test_commands_that_only_look_load_nothing_heavy(run: Run) -> None:
    heavy = {
        "celery",
        "kombu",
        "alembic",
        "numpy",
        "matplotlib",
        "pyarrow",
        "sklearn",
        "datasets",
        "mistralai",
        "aiohttp",
    }
    code = f"import sys, labelmill.cli.main as m; m.build_app(); print(sorted({heavy!r} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "[]"
