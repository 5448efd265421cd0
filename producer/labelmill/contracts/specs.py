"""Specifications: the options of each kind of job, as they are stored in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from labelmill.contracts.bounds import MAX_NAME_CHARS, fault_of_value
from labelmill.contracts.errors import InvalidInput, WorkerUnable
from labelmill.contracts.field_names import named

Probability = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _can_be_kept(cls, value: Any) -> Any:
        if fault := fault_of_value(value):
            raise PydanticCustomError("cannot_be_kept", "{fault}", {"fault": f"a value {fault}"})
        return value

    @classmethod
    def read(cls, stored: dict[str, Any]) -> Self:
        """The options as they are stored. Raises WorkerUnable for options that only a newer version understands."""
        try:
            return cls.model_validate(stored)
        except ValidationError as error:
            place = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))
            raise WorkerUnable(
                f"this worker does not know the job's option {place!r}: a newer Labelmill wrote it; upgrade this worker"
            ) from error


class ReadOptions(_Spec):
    """How a source is to be read; None: it is detected."""

    encoding: str | None = None
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    quoting: Literal["none", "standard"] | None = None


InputKind = Literal["jsonl", "csv", "parquet"]  #: The formats of `core/readers/formats/`.


class FileFormat(_Spec):
    """How a file is read, as it was chosen or detected when the job was submitted."""

    kind: InputKind
    encoding: str = "UTF-8"
    # csv
    delimiter: str = ","
    quoting: Literal["none", "standard", "line"] = "standard"


class TargetSpec(_Spec):
    """One target of a dataset: the column that holds its label(s)."""

    name: str = Field(min_length=1, max_length=MAX_NAME_CHARS)
    column: str
    multi: bool = False


class PrepareSpec(_Spec):
    """How a dataset is made. `files` are local paths inside the data folder; `hf` a hub id `repo[/config]`."""

    name: str
    source: str  #: As the user wrote it; shown, never opened.
    files: tuple[str, ...] = ()
    reading: ReadOptions = ReadOptions()
    formats: tuple[FileFormat, ...] = ()  #: One for each file, or one for all; none: as `reading` says.
    hf: str | None = None
    format: Literal["columns", "factory"] = "columns"
    text: str = "text"
    targets: tuple[TargetSpec, ...] = ()
    where: tuple[tuple[str, str], ...] = ()
    min_per_label: _Count | None = None
    max_per_label: _Count | None = None
    split: tuple[float, float, float] = (80, 10, 10)  #: train, validation, test; parts of their sum.
    seed: int = 42
    dedupe: bool = False
    separator: str | None = Field(default=None, min_length=1)  #: Between the labels in one cell of text.
    on_bad_row: Literal["fail", "skip"] = "fail"


#: The model that a method starts from, unless another is named.
BASE_MODELS = {"factory": "ministral-3b-latest", "embedding": "mistral-embed", "prompt": "ministral-8b-latest"}
EMBEDDING_MODEL = BASE_MODELS["embedding"]


Aim = Literal["micro", "macro", "precision"]
Precision = Annotated[float, Field(gt=0, lt=1)]


MAX_TEXTS_PER_PROMPT = 64


InnerMode = Literal["realtime", "batch"]
INNER_MODES = ("realtime", "batch")  #: Of the batches that trainings and evaluations run.


class TrainSpec(_Spec):
    """How a model version is trained."""

    mode: InnerMode = "realtime"  #: Of the batches that it runs.
    base_model: str = Field(default=BASE_MODELS["factory"], min_length=1, max_length=MAX_NAME_CHARS)
    # factory
    steps: _Count | None = None
    learning_rate: float | None = Field(default=None, gt=0)
    wandb_project: str | None = None
    suffix: str | None = Field(default=None, min_length=1, max_length=18, pattern=r"^[A-Za-z0-9_.-]+$")
    target_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict
    )  #: target → its weight in the loss
    # embedding and factory: thresholds
    optimize: Aim = "micro"  #: What those of multi-label targets are tuned for.
    target_precision: dict[str, Precision] = Field(
        default_factory=dict
    )  #: target, target.label or `*` for all → the precision that is to be certified
    # prompt
    descriptions: dict[str, str] = Field(default_factory=dict)  #: label, or target.label → what it means
    shots: int = Field(default=0, ge=0, le=20)  #: Examples per label.
    shot_selection: Literal["balanced", "nearest"] = "balanced"
    texts_per_prompt: Annotated[int, Field(ge=1, le=MAX_TEXTS_PER_PROMPT)] | Literal["auto"] = 1
    candidates: Annotated[int, Field(ge=2, le=1_000)] | None = None  #: Labels of a target that a prompt names.


class ClassifySpec(_Spec):
    """How a batch is classified."""

    source: str  #: As the user wrote it; shown, never opened.
    reading: ReadOptions = ReadOptions()
    formats: tuple[FileFormat, ...] = ()  #: One for each file, or one for all; none: as `reading` says.
    text: str = "text"
    id: str | None = None
    thresholds: dict[str, Probability] = Field(default_factory=dict)  #: target (or "*") → the minimum of the best score
    multi: tuple[str, ...] = ()  #: Multi-label targets of a raw model id.
    chats: bool = False  #: The texts are chats; not needed for a model that was trained on chats.
    cache: bool = False
    deadline_s: _Count | None = None  #: Of mode auto, from the submission on.
    on_bad_row: Literal["fail", "skip"] = "fail"
    # the model version's own, as they were at submission: a later change must not apply to a part of the batch
    temperatures: dict[str, Temperature] = Field(default_factory=dict)  #: target → what its logits are divided by
    model_thresholds: dict[str, Any] | None = None  #: None: those of the time when a chunk is claimed.
    texts_per_prompt: int | None = None  #: Of a trial, in place of the version's own.


class EvaluateSpec(_Spec):
    """How a model is evaluated. `thresholds` and `temperatures` are the model's own at submission: an evaluation with
    other values is another evaluation."""

    mode: InnerMode = "realtime"  #: Of the batches that it runs.
    calibrate: bool = False  #: Fit a temperature on the validation split and keep it with the model version.
    thresholds: dict[str, Any] | None = None
    temperatures: dict[str, Temperature] = Field(default_factory=dict)
    multi: tuple[str, ...] = ()  #: Multi-label targets of the dataset, for a model whose labels are not known yet.


S = TypeVar("S", bound=_Spec)


def specify(kind: type[S], field_of: Mapping[str, str] = MappingProxyType({}), **fields: Any) -> S:
    """The specification with these options. Raises InvalidInput, which names the request's field. `field_of`:
    specification's name → request's name, where they differ."""
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        field = str(first["loc"][0])
        raise InvalidInput(f"{named(field_of.get(field, field))}: {first['msg']}") from error
