"""A key or an address that cannot work ends a batch at once, with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from mill import Mill, some_texts
from pydantic import SecretStr

from labelmill.contracts.errors import CredentialsRefused, InvalidInput
from labelmill.contracts.messages import ChunkMessage
from labelmill.core.settings import Settings
from labelmill_worker.mistral.endpoint import usable_key, usable_url
from labelmill_worker.runtime.bootstrap import ProcessResources
from labelmill_worker.runtime.tasks.classify import run

PASTED = " \n a-key \r\n"


@pytest.mark.parametrize("key", ["", "  ", "two words", "with\nbreak", "caf\u00e9", "a-\u200bkey"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(CredentialsRefused, match="MISTRAL_API_KEY"):
        usable_key(Settings(MISTRAL_API_KEY=key))


def test_white_space_around_a_key_is_not_its_own() -> None:
    assert usable_key(Settings(MISTRAL_API_KEY=PASTED)) == "a-key"


@pytest.mark.parametrize(
    "url", ["", "api.mistral.ai", "ftp://api.mistral.ai", "https://", "http://[::1", "http://a:x", "http://a"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="LABELMILL_MISTRAL_URL"):
        usable_url(Settings().model_copy(update={"mistral_url": url}))


@pytest.mark.parametrize("url", ["https://api.mistral.ai", " http://127.0.0.1:8000/ ", "http://[::1]:8000"])
def test_addresses(url: str) -> None:
    assert usable_url(Settings(mistral_url=url)) == url.strip().rstrip("/")


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"mistral_api_key": SecretStr("two words")}, "MISTRAL_API_KEY"),
        ({"mistral_url": "mistral"}, "LABELMILL_MISTRAL_URL"),
    ],
)
def test_a_batch_ends_at_once(mill: Mill, tmp_path: Path, change: dict[str, object], setting: str) -> None:
    settings = mill.settings.model_copy(update={"data_dir": str(tmp_path), **change})
    batch = mill.submit(some_texts(5))
    run(ProcessResources(settings, mill.engine, mill.sender), ChunkMessage(job_id=batch, chunk=0))
    status = mill.status(batch)
    assert status["state"] == "failed"
    assert setting in status["error"]
    assert not mill.mistral.billed
