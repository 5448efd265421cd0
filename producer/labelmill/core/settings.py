"""Settings, and the only place that reads the environment.

Order: flag > environment > `.env` > what a running `labelmill up` wrote to `stack.json` in the data folder > default.
Only commands and the Python client read the fourth: a worker holds keys, and no file may decide where it sends them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, NonNegativeFloat, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from labelmill.contracts.errors import InvalidInput
from labelmill.core.addresses.broker import read_broker_url
from labelmill.core.addresses.database import read_database_url
from labelmill.core.addresses.mistral import read_mistral_url
from labelmill.core.addresses.parts import hide_password
from labelmill.core.model_limits import ModelLimit, read_model_limits
from labelmill.core.running_stack import running_stack

Given = TypeVar("Given")
Value = TypeVar("Value")


class Settings(BaseSettings):
    """Everything that differs between a laptop, a test and production. Immutable once made."""

    model_config = SettingsConfigDict(
        env_prefix="LABELMILL_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    broker_url: str = "redis://127.0.0.1:6379/0"
    database_url: str = ""  #: Default: SQLite in the data folder.
    allow_http: bool = False  #: The Mistral key may go through the network unencrypted.
    mistral_url: str = "https://api.mistral.ai"
    mistral_api_key: SecretStr | None = Field(default=None, validation_alias="MISTRAL_API_KEY")
    wandb_api_key: SecretStr | None = Field(default=None, validation_alias="WANDB_API_KEY")
    data_dir: str = ".labelmill"  #: A folder all workers share, or an fsspec URL.
    flower_url: str | None = None

    requests_per_second: float | None = Field(default=None, gt=0)  #: Over the whole fleet; None: no limit.
    tokens_per_minute: float | None = Field(default=None, gt=0)  #: Over the whole fleet; None: no limit.
    #: Limits of single models, as JSON: `{"mistral-embed": {"requests_per_minute": 60, "tokens_per_minute": 1000000}}`.
    model_limits: dict[str, ModelLimit] = Field(default_factory=dict)
    texts_per_request: int = Field(default=100, ge=1, le=10_000)
    max_in_flight: int = Field(default=64, ge=1, le=2_000)  #: Requests, per worker process.
    lease_s: float = Field(default=15, gt=0.5, le=240)  #: Below `MAX_LEASE_S`.
    sweep_s: float = Field(default=5, gt=0)
    request_timeout_s: float = Field(default=60, gt=0)  #: Total time of one request to Mistral.
    poll_s: float = Field(default=2, gt=0)  #: Minimum interval between two polls of a remote job.
    #: USD for a million tokens of input and output, as JSON: `{"mistral-medium": [1.5, 7.5]}`; before Labelmill's own.
    prices: dict[str, tuple[NonNegativeFloat, NonNegativeFloat]] = Field(default_factory=dict)
    ready_file: Path | None = None  #: A worker renews it while it can take work; health checks read its age.
    log_format: str = Field(default="auto", pattern="^(auto|json|text)$")

    @field_validator("broker_url")
    @classmethod
    def _check_broker_url(cls, url: str) -> str:
        url = url.strip()
        _read(read_broker_url, url)
        return url

    @field_validator("model_limits", mode="before")
    @classmethod
    def _read_model_limits(cls, raw: object) -> dict[str, ModelLimit]:
        return _read(read_model_limits, raw)

    @field_validator("data_dir")
    @classmethod
    def _expanded(cls, folder: str) -> str:
        return _expand(folder)

    @field_validator("database_url")
    @classmethod
    def _read_database_url(cls, url: str) -> str:
        url = url.strip()
        return _read(read_database_url, url) if url else ""

    @field_validator("mistral_url")
    @classmethod
    def _check_mistral_url(cls, url: str, info: ValidationInfo) -> str:
        # when `allow_http` itself is invalid it is missing here; its own error is reported first
        _read(lambda given: read_mistral_url(given, allow_http=info.data.get("allow_http", True)), url)
        return url

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show addresses without their passwords."""
        for name, value in super().__repr_args__():
            yield name, hide_password(value) if name in _ADDRESSES and isinstance(value, str) else value

    @property
    def data_path(self) -> Path:
        """The data folder as a local path."""
        return Path(self.data_dir)

    @property
    def sql_url(self) -> str:
        """The database to use: the one named, or SQLite in the data folder."""
        if self.database_url:
            return self.database_url
        from sqlalchemy import URL  # noqa: PLC0415 - slow to import, and not every command needs it

        # in a URL some characters of a path mean something else
        path = str((self.data_path / "labelmill.db").absolute())
        return URL.create("sqlite", database=path).render_as_string(hide_password=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read no folder of secret files."""
        del settings_cls, file_secret_settings
        return init_settings, env_settings, dotenv_settings


_ADDRESSES = {"broker_url", "database_url", "mistral_url", "flower_url"}


def _read(reader: Callable[[Given], Value], raw: Given) -> Value:
    try:
        return reader(raw)
    except ValueError as error:
        raise PydanticCustomError("unreadable", "{why}", {"why": str(error)}) from error


class _ProducerSettings(Settings):
    """Settings of commands and clients: they may come from a local stack of this user."""

    def __repr_name__(self) -> str:
        return Settings.__name__

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put `stack.json` behind the environment and before the defaults."""
        return (*super().settings_customise_sources(settings_cls, *sources, **named), _StackFile(settings_cls))


class _StackFile(PydanticBaseSettingsSource):
    """What a running `labelmill up` wrote."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        folder = self.current_state.get("data_dir") or ".labelmill"
        return running_stack(Path(_expand(str(folder)))) or {}


def _expand(folder: str) -> str:
    """Expand `~`, which shells do not expand in files and after `=`."""
    return os.path.expanduser(folder)  # noqa: PTH111 - Path.expanduser raises without a home


def load_settings(**flags: Any) -> Settings:
    """Read flags, environment and `.env`; `flags` that are None do not count. Raises InvalidInput naming the setting,
    never its value."""
    return _load(Settings, flags)


def load_producer_settings(**flags: Any) -> Settings:
    """As `load_settings`, but also reads the addresses of this user's local stack on the data folder."""
    return _load(_ProducerSettings, flags)


def _load(kind: type[Settings], flags: dict[str, Any]) -> Settings:
    values = {name: value for name, value in flags.items() if value is not None}
    try:
        return kind(**values)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the file .env cannot be read: {error}") from error
    except SettingsError as error:
        field = next((name for name in Settings.model_fields if f'"{name}"' in str(error)), "")
        raise InvalidInput(f"setting LABELMILL_{field.upper()}: it is not valid JSON") from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = str(first["loc"][0]).upper()
        variable = name if name.endswith("API_KEY") else f"LABELMILL_{name}"
        raise InvalidInput(f"setting {variable}: {first['msg']}") from error
