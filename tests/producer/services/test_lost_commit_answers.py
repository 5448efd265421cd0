"""A commit takes effect and its answer is lost: what was accepted does not look refused, or it is paid for twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from asked import Submissions
from lost_commits import LostCommit
from sqlalchemy import select

from labelmill import Client
from labelmill.contracts.errors import DatabaseUnavailable
from labelmill.core.database import reading
from labelmill.core.jobs.tables import TABLE_OF, Kind

COMMITS = {
    Kind.DATASET: r"INSERT INTO datasets ",
    Kind.TRAINING: r"INSERT INTO trainings ",
    Kind.BATCH: r"UPDATE batches SET .*content_digest",
    Kind.EVALUATION: r"INSERT INTO evaluations ",
}


def states_of(client: Client, kind: Kind) -> dict[str, str]:
    """Of all jobs of a kind that were submitted."""
    table = TABLE_OF[kind]
    with reading(client.context.engine) as connection:
        states = {row.id: row.state for row in connection.execute(select(table.id, table.state))}
    states.pop("prep_0000000001", None)  # was there
    return states


@pytest.mark.parametrize("key", [None, "k"])
def test_a_job_whose_commit_took_effect_is_accepted(
    client: Client, submissions: Submissions, kind: Kind, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, _ = submissions[kind]
    commit = LostCommit(client.context.engine, monkeypatch, COMMITS[kind])
    job = submit(idempotency_key=key)
    assert commit.was_lost
    assert states_of(client, kind) == {job.id: "queued"}


def test_where_the_database_stays_away_the_error_names_the_job(
    client: Client, submissions: Submissions, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, _ = submissions[kind]
    with monkeypatch.context() as patch:
        commit = LostCommit(client.context.engine, patch, COMMITS[kind], stays_away=True)
        with pytest.raises(DatabaseUnavailable) as raised:
            submit()
    assert commit.was_lost
    ((job_id, state),) = states_of(client, kind).items()
    assert state == "queued"
    assert raised.value.message.endswith(f"; {job_id} may have been accepted: labelmill status {job_id}")


def test_a_batch_whose_commit_had_no_effect_is_refused_and_ended(
    client: Client, submissions: Submissions, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, _ = submissions[Kind.BATCH]
    LostCommit(client.context.engine, monkeypatch, COMMITS[Kind.BATCH], takes_effect=False)
    with pytest.raises(DatabaseUnavailable) as raised:
        submit()
    assert "may have been accepted" not in raised.value.message
    assert list(states_of(client, Kind.BATCH).values()) == ["failed"]


@pytest.mark.parametrize("stays_away", [False, True])
def test_a_preparation_that_may_have_been_accepted_keeps_the_copies_of_its_source(
    client: Client, submissions: Submissions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, stays_away: bool
) -> None:
    submit, _ = submissions[Kind.DATASET]
    with monkeypatch.context() as patch:
        LostCommit(client.context.engine, patch, COMMITS[Kind.DATASET], stays_away=stays_away)
        if stays_away:
            with pytest.raises(DatabaseUnavailable):
                submit(idempotency_key="k")
        else:
            submit(idempotency_key="k")
    job = submit(idempotency_key="k")
    assert [folder.name for folder in (tmp_path / "data" / "sources").iterdir()] == [job.id]
    assert [file.name for file in (tmp_path / "data" / "sources" / job.id).iterdir()] == ["rows.jsonl"]
