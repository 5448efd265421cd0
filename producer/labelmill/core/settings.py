"""Settings, and the only place that reads the environment.

Order: flag > environment > `.env` > what a running `labelmill up` wrote to `stack.json` in the data folder > default.
Only commands and the Python client read the fourth: a worker holds keys, and no file may decide where it sends them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from labelmill.contracts.bounds import MAX_AMOUNT
from labelmill.contracts.errors import InvalidInput
from labelmill.core.addresses.broker import read_broker_url
from labelmill.core.addresses.database import read_database_url
from labelmill.core.addresses.mistral import read_mistral_url
from labelmill.core.addresses.parts import hide_password
from labelmill.core.addresses.s3 import read_s3_endpoint, read_s3_location
from labelmill.core.model_limits import ModelLimit, read_model_limits
from labelmill.core.running_stack import running_stack

Given = TypeVar("Given")
Value = TypeVar("Value")


class Settings(BaseModel):
    """Everything that differs between a laptop, a test and production. Immutable once made.

    Made with some values, it takes the others from the environment and `.env` (`_env_file=None`: from the former).
    """

    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        validate_default=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    broker_url: str = "redis://127.0.0.1:6379/0"
    database_url: str = ""  #: Default: SQLite in the data folder.
    allow_http: bool = False  #: The Mistral key may go through the network unencrypted.
    mistral_url: str = "https://api.mistral.ai"
    mistral_api_key: SecretStr | None = Field(default=None, validation_alias="MISTRAL_API_KEY")
    wandb_api_key: SecretStr | None = Field(default=None, validation_alias="WANDB_API_KEY")
    data_dir: str = ".labelmill"  #: A folder all workers share, or `s3://bucket/prefix`.
    cache_dir: Path | None = None  #: Of files in S3; None: a private folder in the system's temporary one.
    cache_mb: int = Field(default=2048, ge=1)
    source_schemes: str = ""  #: Of URLs that producers may read in addition to `s3`: `gs,https`.
    aws_access_key_id: SecretStr | None = Field(default=None, validation_alias="AWS_ACCESS_KEY_ID")
    aws_secret_access_key: SecretStr | None = Field(default=None, validation_alias="AWS_SECRET_ACCESS_KEY")
    aws_session_token: SecretStr | None = Field(default=None, validation_alias="AWS_SESSION_TOKEN")
    aws_endpoint_url: str | None = Field(default=None, validation_alias="AWS_ENDPOINT_URL")
    aws_region: str | None = Field(default=None, validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"))
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
    monthly_cap: NonNegativeFloat | None = Field(default=None, le=MAX_AMOUNT)  #: USD, of all jobs in a month of UTC.
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
    def _check_data_dir(cls, folder: str) -> str:
        return str(_read(read_s3_location, folder)) if "://" in folder else _expand(folder)

    @field_validator("cache_dir")
    @classmethod
    def _expand_cache_dir(cls, folder: Path | None) -> Path | None:
        return None if folder is None else Path(_expand(str(folder)))

    @field_validator("aws_endpoint_url")
    @classmethod
    def _check_aws_endpoint_url(cls, url: str | None) -> str | None:
        return None if url is None else _read(read_s3_endpoint, url.strip())

    @field_validator("source_schemes")
    @classmethod
    def _check_source_schemes(cls, schemes: str) -> str:
        return _read(_read_schemes, schemes)

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
    def is_remote(self) -> bool:
        """Whether files lie in S3."""
        return "://" in self.data_dir

    @property
    def allowed_schemes(self) -> frozenset[str]:
        """Of URLs that producers may read in addition to `s3`."""
        return frozenset(filter(None, self.source_schemes.split(",")))

    @property
    def data_path(self) -> Path:
        """The data folder as a local path; where files lie in S3, the folder for what stays on this machine."""
        return Path(_LOCAL_FOLDER if self.is_remote else self.data_dir)

    @property
    def sql_url(self) -> str:
        """The database to use: the one named, or SQLite in the data folder. Raises InvalidInput where files lie in S3
        and none is named."""
        if self.database_url:
            return self.database_url
        if self.is_remote:
            raise InvalidInput(
                f"setting LABELMILL_DATABASE_URL: name a database, for LABELMILL_DATA_DIR is {self.data_dir} and no "
                "SQLite file can lie there"
            )
        from sqlalchemy import URL  # noqa: PLC0415 - slow to import, and not every command needs it

        # in a URL some characters of a path mean something else
        path = str((self.data_path / "labelmill.db").absolute())
        return URL.create("sqlite", database=path).render_as_string(hide_password=False)

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Add what the environment and `.env` say of fields that were not given."""
        variables = _variables(given.get("_env_file", ".env"))
        values = dict(given)
        for name, field in cls.model_fields.items():
            names = _variables_of(name, field)
            value = next((variables[each.lower()] for each in names if each.lower() in variables), None)
            if value is not None and given.keys().isdisjoint((name, *names)):
                values[name] = _read_json(names[0], value) if name in _IN_JSON else value
        return values


_LOCAL_FOLDER = ".labelmill"
_ADDRESSES = {"broker_url", "database_url", "mistral_url", "flower_url"}
_IN_JSON = {"model_limits", "prices"}  #: Fields whose environment variables are JSON.


def _variables_of(name: str, field: FieldInfo) -> list[str]:
    """The environment variables of a field, the preferred one first."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [str(alias or f"LABELMILL_{name.upper()}")]


def _variables(env_file: str | None) -> dict[str, str]:
    """What the environment and, behind it, `env_file` hold: by names in small letters, without empty values. Raises
    InvalidInput."""
    sources: list[Mapping[str, str | None]] = [os.environ]
    try:
        if env_file is not None and Path(env_file).exists():
            from dotenv import dotenv_values  # noqa: PLC0415 - most processes have no such file

            sources.insert(0, dotenv_values(env_file, encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the file .env cannot be read: {error}") from error
    return {name.lower(): value for source in sources for name, value in source.items() if value}


def _read_json(variable: str, raw: str) -> object:
    try:
        return json.loads(raw)
    except ValueError as error:
        raise InvalidInput(f"setting {variable}: it is not valid JSON") from error


def _read(reader: Callable[[Given], Value], raw: Given) -> Value:
    try:
        return reader(raw)
    except ValueError as error:
        raise PydanticCustomError("unreadable", "{why}", {"why": str(error)}) from error


def _read_schemes(raw: str) -> str:
    schemes = [scheme.strip().lower().removesuffix("://") for scheme in raw.split(",") if scheme.strip()]
    if not all(scheme.isascii() and scheme.isalnum() for scheme in schemes):
        raise ValueError("it is a list of schemes, such as gs,https")
    return ",".join(dict.fromkeys(schemes))


def _expand(folder: str) -> str:
    """Expand `~`, which shells do not expand in files and after `=`."""
    return os.path.expanduser(folder)  # noqa: PTH111 - Path.expanduser raises without a home


def load_settings(**flags: Any) -> Settings:
    """Read flags, environment and `.env`; `flags` that are None do not count. Raises InvalidInput naming the setting,
    never its value."""
    values = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = str(first["loc"][0]).upper()
        variable = name if name.endswith("API_KEY") or name.startswith("AWS_") else f"LABELMILL_{name}"
        raise InvalidInput(f"setting {variable}: {first['msg']}") from error


def load_producer_settings(**flags: Any) -> Settings:
    """As `load_settings`, but also reads the addresses of this user's local stack on the data folder."""
    return with_running_stack(load_settings(**flags))


def with_running_stack(given: Settings) -> Settings:
    """`given`, with what a running `labelmill up` wrote in place of defaults. Raises InvalidInput."""
    addresses = None if given.is_remote else running_stack(given.data_path)
    if not addresses:
        return given
    named = {name: getattr(given, name) for name in given.model_fields_set}
    return Settings(**{**addresses, **named, "_env_file": None})
