"""Mistral's fine-tuning jobs, as plain JSON: Mistral retired them in August 2026, and its SDK no longer knows them.
They stay for endpoints that offer them, the emulator among these."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from mistralai.client.errors import MistralError

from labelmill.contracts.errors import FactoryClosed, InvalidInput, LabelmillError, MalformedAnswer
from labelmill_worker.mistral.decoding import job_of
from labelmill_worker.mistral.http_errors import refused_fields
from labelmill_worker.mistral.sdk_requests import PAGE_SIZE, Listed, SdkRequests
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

        def page(number: int) -> list[Listed[RemoteJob]]:
            # jobs of another kind may have no training files, and are none of ours
            return [
                (str(entry.get("id")), job_of(entry) if "training_files" in entry else None)
                for entry in self._listed(number, PAGE_SIZE)
            ]

        with _naming_remedies(_CLOSED):
            ours = [job for job in self._requests.pages(page) if training_file_id in job.training_files]
        return min(ours, key=lambda job: job.created_at) if ours else None

    def check(self) -> None:
        """See `ControlPlane.check_factory`."""
        with _naming_remedies(_CLOSED):
            self._requests.read(lambda: self._listed(0, 1))

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

    def _listed(self, page: int, page_size: int) -> list[dict[str, Any]]:
        answer = self._requests.json("GET", _JOBS, query={"page": page, "page_size": page_size})
        entries = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(entries or [], list) or not all(isinstance(entry, dict) for entry in entries or []):
            raise MalformedAnswer("Mistral's answer holds no list of fine-tuning jobs")
        return entries or []

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
        cause = error.__cause__
        if not isinstance(cause, MistralError) or cause.status_code not in closed:
            raise
        if cause.status_code == 422:
            # since March 2026 every model was refused so; of another field it is that field's fault
            if refused_fields(cause.body) - {"model"}:
                raise
        elif "invalid_model" in cause.body:
            raise
        raise FactoryClosed(
            "Mistral does not let this account fine-tune classifiers any more; train with --method embedding or "
            f"--method prompt instead; classifiers that were fine-tuned before are registered with `labelmill models "
            f"register NAME ID` ({error.message})"
        ) from error
