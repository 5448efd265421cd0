"""A client whose messages nobody reads, and a submission of each kind of job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asked import Submissions
from registered import add_dataset_and_model

from labelmill import Client
from labelmill.core.database import writing
from labelmill.core.jobs.tables import Kind
from labelmill.core.settings import load_settings


class Quiet:
    """A sender whose messages nobody reads."""

    def send(self, *_: Any, **__: Any) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def client(database_url: str, tmp_path: Path) -> Iterator[Client]:
    with Client(load_settings(database_url=database_url, data_dir=str(tmp_path / "data"))) as made:
        with writing(made.context.engine) as connection:
            add_dataset_and_model(connection)
        made.context = replace(made.context, sender=Quiet())  # type: ignore[arg-type]
        yield made


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{row}", "label": "ab"[row % 2]}) + "\n" for row in range(6)))
    return path


@pytest.fixture
def submissions(client: Client, rows: Path) -> Submissions:
    """For each kind how such a job is submitted, and options that make it another request."""

    def prepare(**options: Any) -> Any:
        return client.prepare(source=str(rows), **{"name": "n", "targets": ["intent=label"]} | options)

    def train(**options: Any) -> Any:
        return client.train("m", "d", **options)

    def classify(**options: Any) -> Any:
        return client.classify(str(rows), "m", **options)

    def evaluate(**options: Any) -> Any:
        return client.evaluate("m", "d", **options)

    return {
        Kind.DATASET: (prepare, [{"seed": 7}, {"name": "other"}, {"where": ["label=a"]}]),
        Kind.TRAINING: (train, [{"max_cost": 3.0}, {"method": "prompt"}, {"yes": True}, {"mode": "batch"}]),
        Kind.BATCH: (classify, [{"thresholds": {"*": 0.5}}, {"max_cost": 3.0}, {"mode": "batch"}, {"priority": "low"}]),
        Kind.EVALUATION: (evaluate, [{"split": "train"}, {"max_cost": 3.0}, {"mode": "batch"}]),
    }


@pytest.fixture(params=list(Kind), ids=lambda kind: kind.value)
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(request.param)
