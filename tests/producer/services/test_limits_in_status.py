"""What `status` tells of the limits of the model that a job asks."""

from __future__ import annotations

import time

import pytest
from asked import Submissions
from sqlalchemy import update

from labelmill import Client
from labelmill.core.database import writing
from labelmill.core.database.tables import TrainingRow
from labelmill.core.jobs.tables import Kind
from labelmill.core.reported_limits import KnownLimits, keep_limits


@pytest.mark.parametrize("kind", [Kind.BATCH, Kind.EVALUATION, Kind.TRAINING], ids=lambda kind: kind.value)
def test_every_job_that_asks_a_model_tells_what_is_left_of_the_month(
    client: Client, submissions: Submissions, kind: Kind
) -> None:
    job_id = submissions[kind][0]().id
    if kind is Kind.TRAINING:
        assert client.status(job_id)["tokens_left_of_month"] is None, "it asks nothing yet"
        inner = submissions[Kind.BATCH][0]().id
        with writing(client.context.engine) as connection:
            connection.execute(update(TrainingRow).where(TrainingRow.id == job_id).values(batch_id=inner))
    assert client.status(job_id)["tokens_left_of_month"] is None
    with writing(client.context.engine) as connection:
        keep_limits(connection, {"mistral-embed": KnownLimits(time.time(), tokens_left_of_month=7)})
    assert client.status(job_id)["tokens_left_of_month"] == 7
