"""What a client may send to create a batch job."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_INLINE_REQUESTS = 10_000
MAX_REQUESTS = 100_000  #: Of one job.
MAX_TIMEOUT_HOURS = 7 * 24

MetadataKey = Annotated[str, Field(min_length=1, max_length=32)]
MetadataValue = Annotated[str, Field(min_length=1, max_length=512)]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")  # as Mistral does with fields it does not know


class InlineRequest(_Request):
    """A request within the order."""

    body: dict[str, Any]
    custom_id: str | None = None


class CreateBatch(_Request):
    """The body of `POST /v1/batch/jobs`."""

    endpoint: str
    input_files: list[str] | None = None
    requests: list[InlineRequest] | None = Field(default=None, max_length=MAX_INLINE_REQUESTS)
    model: str | None = None
    agent_id: str | None = None
    metadata: dict[MetadataKey, MetadataValue] | None = None
    timeout_hours: int = Field(default=24, ge=1, le=MAX_TIMEOUT_HOURS)
