"""What is down, full or unreadable around a command: one clear sentence on stderr and the documented exit code."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import NOBODY_REDIS, ROWS, Run

from labelmill.cli import main, progress
from labelmill.cli.context import lost_reads, messages
from labelmill.contracts.errors import BrokerUnavailable
from labelmill.contracts.messages import PREPARE, JobMessage
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import load_settings
from labelmill.services.context import open_context
from labelmill.services.jobs import documents

pytestmark = pytest.mark.acceptance


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
    assert "fresh.db" in ended.sentence  # or the reader looks in another folder than their data
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
        ("LABELMILL_BROKER_URL", "localhost", "write redis://host:6379/0"),
        ("LABELMILL_BROKER_URL", "amqp://secret@localhost//", "amqp:// is not supported"),
        ("LABELMILL_DATABASE_URL", "nonsense", "it is not a URL; write sqlite:///"),
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
    ("variable", "value"),
    [
        ("LABELMILL_BROKER_URL", "redis://:secret@localhost:port/0"),
        ("LABELMILL_BROKER_URL", "sentinel://localhost:26379"),
        ("LABELMILL_BROKER_URL", "redis+socket:///run/redis.sock"),
        ("LABELMILL_MISTRAL_URL", "http://mistral.internal:8000"),
        ("LABELMILL_PRICES", "secret"),
    ],
)
@pytest.mark.parametrize(
    "command",
    ["prepare data good.jsonl --target intent=intent", "classify good.jsonl --model ft:classifier:x --id id", "doctor"],
)
def test_settings_are_checked_before_anything_is_written(run: Run, variable: str, value: str, command: str) -> None:
    ended = run(*command.split(), **{variable: value})
    assert ended.code == 2
    assert f"setting {variable}: " in ended.sentence
    assert "secret" not in ended.err
    assert json.loads(run("status", "--json").out) == []


@pytest.mark.parametrize("arguments", ["worker -Q classify", "flower --port=1"])
def test_a_celery_process_refuses_a_setting_in_one_sentence(arguments: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "labelmill_worker.app", *arguments.split()],
        env=os.environ | {"LABELMILL_MISTRAL_URL": "http://mistral.internal", "MISTRAL_API_KEY": "a-key"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "LABELMILL_ALLOW_HTTP=true" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


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


def test_nobody_waits_long_for_a_redis_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("kombu.utils.functional.sleep", pauses.append)  # between two tries
    sender = MessageSender.connect(load_settings(broker_url=NOBODY_REDIS))
    with pytest.raises(BrokerUnavailable):
        sender.send(PREPARE, [JobMessage(job_id="prep_0123456789abcdef")])
    assert 0 < sum(pauses) < 1, "kombu, left alone, waits for 6 s"


def test_stdin_of_a_windows_program_is_read(run: Run) -> None:
    lines = "\ufeff" + "".join(json.dumps(row) + "\r\n" for row in ROWS)
    ended = run("classify", "-", "--model", "ft:classifier:x", stdin=lines)
    assert ended.code == 0
    document = json.loads(run("status", json.loads(ended.out)["id"], "--json").out)
    assert document["rows"]["submitted"] == len(ROWS)


def test_a_bad_line_on_stdin_is_named(run: Run) -> None:
    ended = run("classify", "-", "--model", "ft:classifier:x", stdin='{"text": "a"}\n{"text": \n')
    assert ended.code == 2
    assert "<stdin>:2: broken JSON" in ended.sentence


@pytest.mark.parametrize("command", ["status", "datasets", "models"])
def test_json_output_is_one_document(run: Run, command: str) -> None:
    assert json.loads(run(command, "--json").out) == []
    assert run(command).code == 0


def test_a_job_that_nobody_takes_up_is_said_to_wait_for_a_worker(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("classify", "good.jsonl", "--model", "ft:classifier:x")
    (job,) = json.loads(run("status", "--json").out)
    real, looks = documents.job_status, iter([{}, {}, {}, {"state": "completed"}])
    monkeypatch.setattr(documents, "job_status", lambda *asked: {**real(*asked), **next(looks)})
    with open_context(load_settings(database_url="sqlite:///jobs.db", broker_url=NOBODY_REDIS)) as context:
        followed = progress.follow(context, job["id"], messages(), lost_reads)
    assert followed["state"] == "completed"
    assert capsys.readouterr().err.count("no worker serves the queue classify") == 1


def test_a_worker_without_its_libraries_names_what_to_install() -> None:
    code = (
        "import importlib.util as util; real = util.find_spec\n"
        "util.find_spec = lambda name: None if name == 'structlog' else real(name)\n"
        "import labelmill_worker.app"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr == 'error: a worker needs structlog: pip install "labelmill[worker]"\n'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_full_disk_is_one_sentence(run: Run) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "labelmill", "status", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "LABELMILL_DATABASE_URL": "sqlite:///jobs.db"},
        )
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == ["error: the output cannot be written: No space left on device"]


def test_a_reader_that_leaves_early_sees_no_fault(run: Run) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "labelmill", "status"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "LABELMILL_DATABASE_URL": "sqlite:///jobs.db"},
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")


def _labelmill(*arguments: str, **given: Any) -> subprocess.CompletedProcess[bytes]:
    environment = {"LABELMILL_DATABASE_URL": "sqlite:///jobs.db", "LABELMILL_BROKER_URL": NOBODY_REDIS}
    environment |= given.pop("environment", {})
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | given
    return subprocess.run(
        [sys.executable, "-m", "labelmill", *arguments], check=False, timeout=60, env=os.environ | environment, **given
    )


_FOREIGN = "caf\u00e9-\u4e2d\u6587-\U0001f600"


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ASCII", "a Windows code page", "the C locale"],
)
@pytest.mark.usefixtures("run")
def test_an_output_that_is_not_utf_8_gets_escapes(environment: dict[str, str]) -> None:
    model = f"ft:classifier:{_FOREIGN}"
    submitted = _labelmill("classify", "good.jsonl", "--model", model)
    assert submitted.returncode == 0, submitted.stderr
    job_id = json.loads(submitted.stdout)["id"]

    told = _labelmill("status", job_id, "--json", environment=environment)
    assert told.returncode == 0
    assert told.stdout.isascii()
    assert json.loads(told.stdout)["model"] == model

    shown = _labelmill("status", job_id, environment=environment)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert b"\\u4e2d\\u6587" in shown.stdout
    missing = _labelmill("classify", f"{_FOREIGN}-2.jsonl", "--model", "m", environment=environment)
    assert missing.returncode == 2
    assert re.search(rb"there is no file .?caf", missing.stderr)  # quoted where it is not valid Unicode


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_whose_output_was_closed_does_its_work(run: Run, closed: str) -> None:
    line = f'exec "$0" -m labelmill classify good.jsonl --model ft:classifier:x {closed}'
    ended = subprocess.run(
        ["/bin/sh", "-c", line, sys.executable],
        capture_output=True,
        check=False,
        timeout=60,
        env=os.environ | {"LABELMILL_DATABASE_URL": "sqlite:///jobs.db", "LABELMILL_BROKER_URL": NOBODY_REDIS},
    )
    assert ended.returncode == 0, ended.stderr
    assert b"Traceback" not in ended.stderr
    (job,) = json.loads(run("status", "--json").out)
    assert job["state"] == "queued"


def test_the_exit_code_does_not_depend_on_who_reads(run: Run) -> None:
    submitted = run("classify", "good.jsonl", "--model", "ft:classifier:x")
    job_id = json.loads(submitted.out)["id"]
    assert run("cancel", job_id).code == 0
    reading, writing = os.pipe()
    os.close(reading)
    ended = _labelmill("watch", job_id, stdout=writing, stderr=writing)
    os.close(writing)
    assert ended.returncode == 6  # as for who reads that the job was cancelled


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
        "error: an unexpected error occurred (ZeroDivisionError: two lines); LABELMILL_DEBUG=1 shows where\n"
    )
    monkeypatch.setenv("LABELMILL_DEBUG", "1")
    with pytest.raises(SystemExit):
        main.run()
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_while_the_commands_are_imported_is_no_traceback() -> None:
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'labelmill.cli.main': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from labelmill.__main__ import run; run()"
    )
    ended = subprocess.run([sys.executable, "-c", code, "status"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "")


def test_ctrl_c_right_after_the_submission_says_that_the_job_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("labelmill.services.submissions.accepted.start", interrupted)
    ended = run("classify", "good.jsonl", "--model", "ft:classifier:x", "--wait")
    submitted, detached = ended.err.splitlines()
    assert ended.code == 130
    assert detached == f"detached; the job goes on: labelmill watch {submitted.removeprefix('submitted: ')}"
