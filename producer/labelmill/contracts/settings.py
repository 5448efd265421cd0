"""Settings, and the only place that reads the environment.

Order: flag > environment > `.env` > what a running `labelmill up` wrote to `stack.json` in the data folder > default.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeFloat, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from labelmill.contracts.errors import InvalidInput

STACK_FILE = "stack.json"
_REDIS_SCHEMES = ("redis://", "rediss://", "redis+socket://", "sentinel://")


class Settings(BaseSettings):
    """Everything that differs between a laptop, a test and production. Immutable once made."""

    model_config = SettingsConfigDict(
        env_prefix="LABELMILL_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True,
        populate_by_name=True,
    )  # fmt: skip

    broker_url: str = "redis://127.0.0.1:6379/0"
    database_url: str = ""  #: Default: SQLite in the data folder.
    mistral_url: str = "https://api.mistral.ai"
    mistral_api_key: SecretStr | None = Field(default=None, validation_alias="MISTRAL_API_KEY")
    wandb_api_key: SecretStr | None = Field(default=None, validation_alias="WANDB_API_KEY")
    data_dir: str = ".labelmill"  #: A folder all workers share, or an fsspec URL.
    flower_url: str | None = None

    requests_per_second: float | None = Field(default=None, gt=0)  #: Over the whole fleet; None: no limit.
    tokens_per_minute: float | None = Field(default=None, gt=0)  #: Over the whole fleet; None: no limit.
    texts_per_request: int = Field(default=100, ge=1, le=10_000)
    max_in_flight: int = Field(default=64, ge=1, le=2_000)  #: Requests, per worker process.
    lease_s: float = Field(default=15, gt=0.5, le=240)  #: Below `FAR_LEASE_S`.
    sweep_s: float = Field(default=5, gt=0)
    request_timeout_s: float = Field(default=60, gt=0)  #: Total time of one request to Mistral.
    poll_s: float = Field(default=2, gt=0)  #: Shortest pause between two looks at a remote job.
    #: USD for a million tokens of input and output, as JSON: `{"mistral-medium": [1.5, 7.5]}`; before Labelmill's own.
    prices: dict[str, tuple[NonNegativeFloat, NonNegativeFloat]] = Field(default_factory=dict)
    log_format: str = Field(default="auto", pattern="^(auto|json|text)$")

    @field_validator("broker_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        if not url.startswith(_REDIS_SCHEMES):
            raise PydanticCustomError("redis_url", "write a Redis URL: redis://host:6379/0")
        return url

    @field_validator("data_dir")
    @classmethod
    def _expanded(cls, folder: str) -> str:
        return _expand(folder)

    @property
    def data_path(self) -> Path:
        """The data folder as a local path."""
        return Path(self.data_dir)

    @property
    def sql_url(self) -> str:
        """The database to use: the one named, or SQLite in the data folder."""
        if self.database_url:
            return self.database_url
        from sqlalchemy import URL  # noqa: PLC0415 - slow to import, and whoever asks is about to connect

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
        """Put `stack.json` behind the environment and before the defaults."""
        del file_secret_settings
        return init_settings, env_settings, dotenv_settings, _StackFile(settings_cls)


class _StackFile(PydanticBaseSettingsSource):
    """What a running `labelmill up` wrote. A file whose process is gone is ignored."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        folder = self.current_state.get("data_dir") or ".labelmill"
        return running_stack(Path(_expand(str(folder)))) or {}


def _expand(folder: str) -> str:
    """`~` as shells read it, which do not look into files and behind `=`."""
    return os.path.expanduser(folder)  # noqa: PTH111 - Path.expanduser raises without a home


def running_stack(data_dir: Path) -> dict[str, Any] | None:
    """Settings of the `labelmill up` that runs on this data folder, or None."""
    try:
        written = json.loads((data_dir / STACK_FILE).read_text())
        os.kill(int(written.pop("pid")), 0)
    except PermissionError:
        pass  # it runs, as another user
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return dict(written)


def load_settings(**flags: Any) -> Settings:
    """Read all sources; `flags` that are None do not count. Raises InvalidInput naming the setting, never its value."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the file .env cannot be read: {error}") from error
    except SettingsError as error:  # what is no JSON
        field = next((name for name in Settings.model_fields if f'"{name}"' in str(error)), "")
        raise InvalidInput(f"setting LABELMILL_{field.upper()}: it is no JSON") from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = str(first["loc"][0]).upper()
        variable = name if name.endswith("API_KEY") else f"LABELMILL_{name}"
        raise InvalidInput(f"setting {variable}: {first['msg']}") from error
