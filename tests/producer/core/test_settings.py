"""Where a setting comes from: flag, environment, `.env`, a running `labelmill up`, default, in this order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import make_url

from labelmill.contracts.errors import InvalidInput
from labelmill.core.database import connect, upgrade
from labelmill.core.database.dialects.sqlite_connections import database_file
from labelmill.core.model_limits import ModelLimit
from labelmill.core.running_stack import running_stack, write_stack_file
from labelmill.core.settings import Settings, load_producer_settings, load_settings

BROKERS = {name: f"redis://{name}:6379/0" for name in ("flag", "environment", "dotenv", "stack")}
DEFAULT = "redis://127.0.0.1:6379/0"


def write_stack(folder: str = ".labelmill", **changed: Any) -> Path:
    """The file of a stack that this process runs, but for what is `changed` in it."""
    Path(folder).mkdir(exist_ok=True)
    path = write_stack_file(Path(folder), {"broker_url": BROKERS["stack"]})
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return path


@pytest.mark.parametrize(
    ("sources", "winner"),
    [
        ({"flag", "environment", "dotenv", "stack"}, "flag"),
        ({"environment", "dotenv", "stack"}, "environment"),
        ({"dotenv", "stack"}, "dotenv"),
        ({"stack"}, "stack"),
    ],
)
def test_the_nearest_source_of_a_setting_wins(monkeypatch: pytest.MonkeyPatch, sources: set[str], winner: str) -> None:
    if "environment" in sources:
        monkeypatch.setenv("LABELMILL_BROKER_URL", BROKERS["environment"])
    if "dotenv" in sources:
        Path(".env").write_text(f"LABELMILL_BROKER_URL={BROKERS['dotenv']}\n")
    if "stack" in sources:
        write_stack()
    settings = load_producer_settings(broker_url=BROKERS["flag"] if "flag" in sources else None)
    assert settings.broker_url == BROKERS[winner]


def test_a_variable_counts_in_small_letters_and_not_when_it_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(f"LABELMILL_BROKER_URL={BROKERS['dotenv']}\nlabelmill_sweep_s=7\nLABELMILL_LEASE_S=\n")
    monkeypatch.setenv("LABELMILL_BROKER_URL", "")
    monkeypatch.setenv("labelmill_max_in_flight", "5")
    settings = load_settings()
    assert (settings.broker_url, settings.sweep_s, settings.max_in_flight) == (BROKERS["dotenv"], 7, 5)
    assert settings.lease_s == Settings.model_fields["lease_s"].default
    assert Settings(_env_file=None).broker_url == DEFAULT  # type: ignore[call-arg]


@pytest.mark.parametrize("given", ["AWS_REGION", "aws_region", "AWS_DEFAULT_REGION"])
def test_what_is_given_comes_before_the_environment_under_any_of_its_names(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "other")
    assert load_settings().aws_region == "other"
    monkeypatch.setenv("AWS_REGION", "preferred")
    assert load_settings().aws_region == "preferred"
    assert load_settings(**{given: "given"}).aws_region == "given"


def test_a_dotenv_file_that_is_not_text_is_refused_in_one_sentence() -> None:
    Path(".env").write_bytes(b"LABELMILL_BROKER_URL=\xff\n")
    with pytest.raises(InvalidInput, match=r"the file \.env cannot be read"):
        load_settings()


def test_without_any_source_there_is_a_default() -> None:
    assert load_settings().broker_url == DEFAULT
    assert load_settings().sql_url == f"sqlite:///{Path('.labelmill/labelmill.db').absolute()}"


def test_no_worker_is_told_anything_by_the_stack_file() -> None:
    write_stack(mistral_url="https://elsewhere.example", database_url="sqlite:///elsewhere.db")
    assert load_producer_settings().broker_url == BROKERS["stack"]
    assert load_settings() == Settings()
    asked = "from labelmill_worker.app import app; print(app.connection().as_uri(include_password=True))"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == DEFAULT


def test_a_stack_whose_process_is_gone_is_ignored() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(30)
    write_stack(pid=ended.pid)
    assert load_producer_settings().broker_url == DEFAULT


@pytest.mark.parametrize(
    "changed",
    [
        {"started": "1"},  # another process has got the number since
        {"pid": 1},
        {"pid": 2**70},
        {"boot_id": "0d2a1f9e-0000-4000-8000-000000000000"},  # another machine that shares the folder
    ],
)
def test_a_stack_file_of_another_process_or_machine_is_ignored(changed: dict[str, object]) -> None:
    assert running_stack(write_stack().parent) is not None
    assert running_stack(write_stack(**changed).parent) is None


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602, 0o400])
def test_a_stack_file_that_others_may_touch_is_ignored(mode: int) -> None:
    write_stack().chmod(mode)
    assert load_producer_settings().broker_url == DEFAULT


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_stack_file_of_another_user_is_ignored() -> None:
    path = write_stack()
    os.chown(path, 12345, -1)
    assert load_producer_settings().broker_url == DEFAULT


def test_a_stack_file_that_is_a_link_or_a_pipe_is_ignored() -> None:
    path = write_stack()
    path.rename("elsewhere.json")
    path.symlink_to(Path("elsewhere.json").absolute())
    assert load_producer_settings().broker_url == DEFAULT
    path.unlink()
    os.mkfifo(path, 0o600)
    assert load_producer_settings().broker_url == DEFAULT


@pytest.mark.parametrize("flag", [True, False])
def test_the_stack_of_another_data_folder_is_found_there(monkeypatch: pytest.MonkeyPatch, *, flag: bool) -> None:
    write_stack("elsewhere")
    if not flag:
        monkeypatch.setenv("LABELMILL_DATA_DIR", "elsewhere")
    assert load_producer_settings(data_dir="elsewhere" if flag else None).broker_url == BROKERS["stack"]


@pytest.mark.parametrize("written", ["", "{", "[]", "null", '{"broker_url": "redis://x"}', '{"pid": "me"}'])
def test_a_stack_file_that_says_nothing_useful_is_ignored(written: str) -> None:
    write_stack().write_text(written)
    assert load_producer_settings().broker_url == DEFAULT


@pytest.mark.parametrize("folder", ["a%2Fb", "q?a", "q?mode=memory", "h#x", "a b", "100%", "ü@:&", "a%252Fb", "file:x"])
def test_the_database_lies_in_the_data_folder_whatever_that_is_called(tmp_path: Path, folder: str) -> None:
    settings = load_settings(data_dir=str(tmp_path / folder))
    engine = connect(settings.sql_url)
    upgrade(engine)
    engine.dispose()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.db")] == [f"{folder}/labelmill.db"]
    assert database_file(make_url(settings.sql_url)) == tmp_path / folder / "labelmill.db"


def test_a_tilde_in_the_environment_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LABELMILL_DATA_DIR", "~/data")
    write_stack(str(tmp_path / "data"))
    settings = load_producer_settings()
    assert settings.data_path == tmp_path / "data"
    assert settings.broker_url == BROKERS["stack"]
    assert connect("sqlite:///~/x/y.db").url.database == f"{tmp_path}/x/y.db"
    assert load_settings(data_dir="s3://bucket/~/x").data_dir == "s3://bucket/~/x"


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("LABELMILL_BROKER_URL", "sentinel://:hunter2@h", "sentinel:// is not supported"),
        ("LABELMILL_BROKER_URL", "redis://:hunter2@h:port", "host or port"),
        ("LABELMILL_DATABASE_URL", "mysql://u:hunter2@h/db", "SQLite or PostgreSQL"),
        ("LABELMILL_MISTRAL_URL", "mistral", "not an http:// or https:// address"),
        ("LABELMILL_MISTRAL_URL", "http://10.0.0.5", "LABELMILL_ALLOW_HTTP=true"),
        ("LABELMILL_ALLOW_HTTP", "perhaps", "boolean"),
        ("LABELMILL_PRICES", "hunter2", "not valid JSON"),
        ("LABELMILL_LEASE_S", "hunter2", "number"),
    ],
)
def test_a_setting_that_cannot_work_is_named_and_its_value_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, why: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidInput, match=why) as refused:
        load_settings()
    assert f"setting {variable}: " in refused.value.message
    assert "hunter2" not in refused.value.message


def test_http_is_allowed_by_a_setting() -> None:
    assert load_settings(mistral_url="http://10.0.0.5", allow_http="true").mistral_url == "http://10.0.0.5"


def test_shown_settings_hold_no_password_and_no_key() -> None:
    settings = Settings(
        broker_url="rediss://u:hunter2@h",
        database_url="postgres://u:hunter2@h/db?password=hunter2",
        mistral_url="https://u:hunter2@h",
        MISTRAL_API_KEY="hunter2",
        WANDB_API_KEY="hunter2",
    )
    for shown in (repr(settings), str(settings), f"{settings}", repr({"settings": settings})):
        assert "hunter2" not in shown
        assert "rediss://u:***@h" in shown
    with pytest.raises(ValidationError) as refused:
        Settings(broker_url="redis://u:hunter2@h:port")
    assert "hunter2" not in str(refused.value)


def test_limits_of_models_are_read_from_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMILL_MODEL_LIMITS", '{" mistral-embed ": {"requests_per_minute": 60}}')
    assert load_settings().model_limits == {"mistral-embed": ModelLimit(requests_per_minute=60.0)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[1]", "it is not a JSON object of models; write {"),
        ("{", "it is not valid JSON"),
        ('{"": {"tokens_per_minute": 1}}', "it has a limit without a model's id; write {"),
        ('{"m": 60}', "'m' has no limits; write {"),
        ('{"m": {}}', "'m' has no limits; write {"),
        ('{"m": {"rpm": 60}}', "'m' has 'rpm'; known are requests_per_minute and tokens_per_minute"),
        ('{"m": {"requests_per_minute": 0}}', "requests_per_minute of 'm' is not a number above 0"),
        ('{"m": {"tokens_per_minute": "60"}}', "tokens_per_minute of 'm' is not a number above 0"),
        ('{"m": {"tokens_per_minute": NaN}}', "tokens_per_minute of 'm' is not a number above 0"),
        ('{"m": {"tokens_per_minute": true}}', "tokens_per_minute of 'm' is not a number above 0"),
        ('{"m": {"tokens_per_minute": 1' + "0" * 400 + "}}", "tokens_per_minute of 'm' is not a number above 0"),
    ],
)
def test_a_limit_of_a_model_that_cannot_be_one_is_named_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, given: str, said: str
) -> None:
    monkeypatch.setenv("LABELMILL_MODEL_LIMITS", given)
    with pytest.raises(InvalidInput) as refused:
        load_settings()
    assert refused.value.message.startswith(f"setting LABELMILL_MODEL_LIMITS: {said}")
    assert "\n" not in refused.value.message
