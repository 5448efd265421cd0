"""What a person types wrongly: one clear sentence on stderr and the documented exit code.

No stack runs here: a real SQLite file, and addresses where nothing listens.
"""

from __future__ import annotations

import pytest
from command_line import Run

pytestmark = pytest.mark.acceptance


_PREPARE = ("--target", "intent=intent")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nope.jsonl", "there is no file nope.jsonl"),
        ("*.nope", "no file matches *.nope"),
        ("folder", "folder is a folder"),
        ("empty.jsonl", "empty.jsonl holds no rows"),
        ("header.csv", "header.csv holds no rows"),
        ("twice.csv", "2 columns named 'text'"),
        ("latin.csv", "line 2: not UTF-8; save the file as UTF-8, or name its encoding"),
        ("broken.jsonl", "the first problem is at line 1: broken JSON"),
        ("array.jsonl", "holds a JSON array; write one object on each line"),
        ("picture.png", "in no format known here"),
        ("fake.parquet", "fake.parquet cannot be read as Parquet"),
        ("cut.jsonl.gz", "cut.jsonl.gz is damaged"),
        ("-", "<stdin> holds no rows"),
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
        ("prepare a/b good.jsonl --target intent=intent", "'a/b' cannot be the name of a dataset"),
        ("train intents --dataset nope --method factory", "no dataset 'nope' is ready"),
        ("train intents --dataset nope", "no dataset 'nope' is ready"),
        ("train intents --dataset nope --method magic", "--method is one of embedding, factory, prompt"),
        ("train intents --dataset nope --steps 5", "--steps goes with --method factory"),
        ("train intents --dataset nope --method factory --target-weight intent", "is not NAME=VALUE"),
        ("train intents --dataset nope --method prompt --describe nope.json", "No such file"),
        ("train in/tents --dataset nope --method factory", "cannot be the name of a model"),
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


@pytest.mark.parametrize("job_id", ["batch_0123456789abcdef", "prep_0123456789abcdef", "nonsense", "[red]", ""])
@pytest.mark.parametrize("command", ["status", "watch", "results", "cancel", "retry", "approve"])
def test_an_id_that_nothing_has_is_named(run: Run, command: str, job_id: str) -> None:
    if (command, job_id.partition("_")[0]) == ("cancel", "prep"):
        return  # datasets are not cancelled, known or not
    ended = run(command, job_id)
    assert ended.code == 2
    assert repr(job_id) in ended.sentence


@pytest.mark.parametrize("output", [(), ("-o", "out.jsonl")])
def test_who_waits_is_warned_before_that_redis_is_down(
    run: Run, monkeypatch: pytest.MonkeyPatch, output: tuple[str, ...]
) -> None:
    def ctrl_c(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("labelmill.cli.context.follow", ctrl_c)
    ended = run("classify", "good.jsonl", "--model", "ft:classifier:test", "--wait", *output)
    assert ended.code == 130
    assert "warning: Redis cannot be reached" in ended.err
