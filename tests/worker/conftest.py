"""What the tests of workers share: a stand-in for Mistral, and workers in this process that ask it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mill import Mill, open_mill
from sqlalchemy.engine import Engine
from strict_mistral import StrictMistral


@pytest.fixture
def mistral() -> Iterator[StrictMistral]:
    with StrictMistral() as server:
        yield server


@pytest.fixture
def mill(engine: Engine, mistral: StrictMistral, redis_url: str) -> Iterator[Mill]:
    made, runtime = open_mill(engine, mistral, redis_url)
    yield made
    assert made.free_slots() == 8, "a slot was lost"
    runtime.close()
