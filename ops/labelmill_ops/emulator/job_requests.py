"""What a client may send to create a fine-tuning job."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from labelmill_ops.emulator.training_data import LossFunction


class _Request(BaseModel):
    # As at Mistral, fields that are not known are ignored.
    model_config = ConfigDict(frozen=True)


class TrainingFile(_Request):
    """A training file and its weight, which the emulator does not use."""

    file_id: str
    weight: float = Field(default=1, gt=0)


class Hyperparameters(_Request):
    """Echoed in the job; only steps and epochs have an effect, on price and checkpoints."""

    training_steps: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=0.0001, gt=0, le=1)
    weight_decay: float | None = Field(default=None, ge=0, le=1)
    warmup_fraction: float | None = Field(default=None, ge=0, le=1)
    epochs: float | None = Field(default=None, gt=0)
    seq_len: int | None = Field(default=None, ge=100)


class Wandb(_Request):
    """A W&B integration. Its key is neither used nor stored."""

    type: Literal["wandb"] = "wandb"
    project: str
    api_key: str = Field(min_length=1, exclude=True, repr=False)
    name: str | None = None
    run_name: str | None = None

    def echoed(self) -> dict[str, Any]:
        """Return what the job shows of it."""
        return {**self.model_dump(), "url": None}


class ClassifierTarget(_Request):
    """A target with its labels, given rather than found in the files."""

    name: str = Field(min_length=1)
    labels: list[str] = Field(min_length=1)
    weight: float = 1
    loss_function: LossFunction | None = None


class CreateJob(_Request):
    """The body of `POST /v1/fine_tuning/jobs`."""

    model: str
    training_files: list[TrainingFile] = []
    validation_files: list[str] | None = None
    hyperparameters: Hyperparameters
    suffix: str | None = Field(default=None, max_length=18)
    integrations: list[Wandb] | None = None
    auto_start: bool | None = None
    job_type: Literal["classifier"] | None = None
    classifier_targets: list[ClassifierTarget] | None = None
