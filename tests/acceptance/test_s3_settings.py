"""Settings of S3 that do not fit together are refused in one sentence, before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Run
from s3_server import BUCKET, KEY, SECRET, S3Server

NO_DATABASE = {"LABELMILL_DATA_DIR": "s3://bucket/ours", "LABELMILL_DATABASE_URL": ""}


def test_a_command_without_a_database_says_that_s3_needs_one(run: Run) -> None:
    for command in (["status"], ["prepare", "x", "rows.jsonl", "--target", "a=b"], ["db", "upgrade"]):
        ended = run(*command, **NO_DATABASE)
        assert ended.code == 2
        assert "LABELMILL_DATABASE_URL: name a database, for LABELMILL_DATA_DIR is s3://bucket/ours" in ended.err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"LABELMILL_DATA_DIR": "s3://nobodys/ours"}, "there is no bucket s3://nobodys"),
        ({"AWS_ACCESS_KEY_ID": "UNKNOWNKEYOFTESTS"}, "s3://bucket refuses the key in AWS_ACCESS_KEY_ID"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "setting AWS_ENDPOINT_URL: it is not the address of a server"),
    ],
)
def test_a_preparation_that_cannot_be_stored_is_refused(
    run: Run, s3_server: S3Server, given: dict[str, str], words: str
) -> None:
    settings = s3_server.environment() | {"LABELMILL_DATA_DIR": f"s3://{BUCKET}/ours"} | given
    Path("own.jsonl").write_text('{"text": "a", "label": "b"}\n')
    ended = run("prepare", "x", "own.jsonl", "--target", "intent=label", **settings)
    assert (ended.code, words in ended.err) == (2, True), ended.err
    assert SECRET not in ended.err
    assert KEY not in ended.err
    assert s3_server.keys("ours") == []
    listed = run("status", "--json", **{name: value for name, value in settings.items() if name not in given})
    assert listed.out.strip() == "[]"


def test_a_source_in_s3_that_the_key_may_not_read_is_refused(run: Run, s3_server: S3Server) -> None:
    settings = s3_server.environment() | {"AWS_ACCESS_KEY_ID": "UNKNOWNKEYOFTESTS"}
    for command in (["prepare", "x"], ["classify"]):
        options = ["--target", "intent=label"] if "prepare" in command else ["--model", "ft:classifier:x"]
        ended = run(*command, f"s3://{BUCKET}/in.jsonl", *options, **settings)
        assert ended.code == 2
        assert "may not be read or written with this key" in ended.err


def test_a_batch_is_read_from_s3_and_its_results_are_written_there(run: Run, s3_server: S3Server) -> None:
    settings = s3_server.environment()
    s3_server.put("in/a.jsonl", b'{"text": "one"}\n{"text": "two"}\n')
    s3_server.put("in/b.jsonl", b'{"text": "three"}\n')
    submitted = run("classify", f"s3://{BUCKET}/in/*.jsonl", "--model", "ft:classifier:x", **settings)
    assert submitted.code == 0, submitted.err
    batch = json.loads(submitted.out)["id"]
    status = json.loads(run("status", batch, **settings).out)
    assert status["rows"]["submitted"] == 3
    ended = run("results", batch, "-o", f"s3://{BUCKET}/out/results.csv", **settings)
    assert (ended.code, f"s3://{BUCKET}/out/results.csv" in ended.err) == (0, True), ended.err
    assert s3_server.get("out/results.csv").startswith(b"row,id,text")
    refused = run("results", batch, "-o", "s3://nobodys/results.csv", **settings)
    assert (refused.code, "there is no bucket s3://nobodys" in refused.err) == (2, True)
    source = run("results", batch, "-o", f"s3://{BUCKET}/in/a.jsonl", **settings)
    assert (source.code, "is the source itself" in source.err) == (2, True), source.err
    assert s3_server.get("in/b.jsonl") == b'{"text": "three"}\n'
