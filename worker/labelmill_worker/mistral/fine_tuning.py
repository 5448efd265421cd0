"""Mistral's fine-tuning jobs, as plain JSON: Mistral retired them in August 2026, and its SDK no longer knows them.
They stay for endpoints that offer them, the emulator among these."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from labelmill.contracts.errors import FactoryClosed, InvalidInput, LabelmillError
from labelmill_worker.mistral.decoding import job_of
from labelmill_worker.mistral.sdk_requests import SdkRequests
from labelmill_worker.ports.control_plane import JobOrder, RemoteJob

_JOBS = "/v1/fine_tuning/jobs"
_GONE = frozenset({405, 410})  #: The route as such is closed.
_CLOSED = _GONE | {403, 404, 422}  #: The same, of a request that names no job.


class FineTuningJobs:
    """The part of a `ControlPlane` that is about fine-tuning jobs."""

    def __init__(self, requests: SdkRequests, wandb_api_key: str | None) -> None:
        self._requests = requests
        self._wandb_api_key = wandb_api_key

    def create(self, order: JobOrder) -> RemoteJob:
        """See `ControlPlane.create_job`. Raises InvalidInput for a W&B project without a W&B key."""
        body = self._body(order)
        with _naming_remedies(_CLOSED):
            return self._requests.once(lambda: job_of(self._requests.json("POST", _JOBS, body)))

    def find(self, training_file_id: str) -> RemoteJob | None:
        """See `ControlPlane.find_job`."""

        def decode(entry: Mapping[str, Any]) -> RemoteJob | None:
            files = entry.get("training_files")  # jobs of another kind may have none
            return job_of(entry) if isinstance(files, list) and training_file_id in files else None

        with _naming_remedies(_CLOSED):
            ours = list(self._requests.listed(_JOBS, decode, {}))
        return min(ours, key=lambda job: job.created_at) if ours else None

    def check(self) -> None:
        """See `ControlPlane.check_factory`."""
        with _naming_remedies(_CLOSED):
            self._requests.read(lambda: self._requests.entries(_JOBS, {"page": 0, "page_size": 1}))

    def get(self, job_id: str) -> RemoteJob:
        """See `ControlPlane.get_job`."""
        with _naming_remedies(_GONE):
            return self._requests.read(lambda: job_of(self._requests.json("GET", f"{_JOBS}/{job_id}")))

    def start(self, job_id: str) -> None:
        """See `ControlPlane.start_job`."""
        self._act(job_id, "start")

    def cancel(self, job_id: str) -> None:
        """See `ControlPlane.cancel_job`."""
        self._act(job_id, "cancel")

    def _act(self, job_id: str, action: str) -> None:
        with _naming_remedies(_GONE):
            self._requests.once(lambda: self._requests.json("POST", f"{_JOBS}/{job_id}/{action}"))

    def _body(self, order: JobOrder) -> dict[str, Any]:
        hyperparameters = {"training_steps": order.steps, "learning_rate": order.learning_rate}
        body: dict[str, Any] = {
            "model": order.base_model,
            "job_type": "classifier",
            "training_files": [{"file_id": file, "weight": 1} for file in order.training_files],
            "hyperparameters": {name: value for name, value in hyperparameters.items() if value is not None},
            "auto_start": False,
        }
        if order.validation_files:
            body["validation_files"] = list(order.validation_files)
        if order.targets:
            body["classifier_targets"] = [
                {
                    "name": target.name,
                    "labels": list(target.labels),
                    "weight": target.weight,
                    "loss_function": "multi_class" if target.multi else "single_class",
                }
                for target in order.targets
            ]
        if order.suffix:
            body["suffix"] = order.suffix
        if order.wandb_project:
            if not self._wandb_api_key:
                raise InvalidInput("--wandb-project needs WANDB_API_KEY in the worker's environment")
            integration = {"type": "wandb", "project": order.wandb_project, "api_key": self._wandb_api_key}
            body["integrations"] = [integration]
        return body


@contextlib.contextmanager
def _naming_remedies(closed: frozenset[int]) -> Iterator[None]:
    """Name the remedies where Mistral no longer lets this account fine-tune, which statuses in `closed` say."""
    try:
        yield
    except LabelmillError as error:
        refusal = error.refusal
        if refusal is None or refusal.status not in closed:
            raise
        # since March 2026 every model was refused with 422; of another field it is that field's fault
        if refusal.fields - {"model"} if refusal.status == 422 else refusal.is_of_model:
            raise
        raise FactoryClosed(
            "Mistral does not let this account fine-tune classifiers any more; train with --method embedding or "
            f"--method prompt instead; classifiers that were fine-tuned before are registered with `labelmill models "
            f"register NAME ID` ({error.message})"
        ) from error
