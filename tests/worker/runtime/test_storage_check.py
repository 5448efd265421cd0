"""What a worker says of the storage of its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from s3_server import BUCKET, READER, SECRET, S3Server

from labelmill.core.settings import load_settings
from labelmill_worker.runtime.storage_check import (
    BucketCheck,
    bucket_trouble,
    check_storage_at_start,
    folder_trouble,
)


def test_a_worker_tells_why_it_cannot_use_the_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    assert bucket_trouble(load_settings(data_dir=f"s3://{BUCKET}/ours")) is None
    assert bucket_trouble(load_settings(data_dir="s3://nobodys")) == (
        "there is no bucket s3://nobodys: make it, or name another one"
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER)
    trouble = bucket_trouble(load_settings(data_dir=f"s3://{BUCKET}/ours")) or ""
    assert "may not be read or written with this key" in trouble
    assert SECRET not in trouble
    assert s3_server.keys() == []


def test_a_bucket_that_says_nothing_holds_nobody_up(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    settings, check = load_settings(data_dir=f"s3://{BUCKET}/ours"), BucketCheck()
    s3_server.holds = lambda _: True
    for _ in range(2):
        check.renew(settings, within_s=0.2)
        assert check.trouble == f"s3://{BUCKET}/ours does not answer within 0.2 s"
    assert len([line for line in s3_server.requests if "uploads" in line]) == 1
    s3_server.release.set()
    check.renew(settings, within_s=30)
    assert check.trouble is None


def test_a_folder_is_looked_at_at_once_and_a_bucket_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert folder_trouble(load_settings(data_dir=str(tmp_path))) is None
    assert "cannot be written to" in (folder_trouble(load_settings(data_dir=str(tmp_path / "file"))) or "")
    assert folder_trouble(load_settings(data_dir="s3://bucket")) is None
    assert bucket_trouble(load_settings(data_dir=str(tmp_path / "file"))) is None


def test_a_worker_whose_settings_name_no_storage_does_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        check_storage_at_start(load_settings(data_dir="s3://bucket"))
    assert ended.value.code == 2
    assert "setting LABELMILL_DATABASE_URL: name a database" in capsys.readouterr().err
    check_storage_at_start(load_settings(data_dir="s3://bucket", database_url="sqlite:///a.db"))
