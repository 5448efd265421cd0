"""`ControlPlane` on Mistral's own SDK. One instance serves every thread of a process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mistralai.client.errors import MistralError
from mistralai.client.models import ClassifierTrainingParameters, File, TrainingFile, WandbIntegration

from labelmill.contracts.errors import FactoryClosed, InvalidInput, LabelmillError, RemoteFailed
from labelmill.core.settings import Settings
from labelmill_worker.mistral.decoding import file_of, id_of, job_of, model_of
from labelmill_worker.mistral.sdk_requests import PAGE_SIZE, READ_ATTEMPTS, Listed, SdkRequests
from labelmill_worker.ports.control_plane import JobOrder, RemoteFile, RemoteJob, RemoteModel

UPLOAD_BYTES_PER_S = 100_000  #: An upload may take so much longer than other requests.


class SdkControlPlane:
    """`wandb_api_key`: goes into the order of a job that reports to W&B."""

    def __init__(self, requests: SdkRequests, wandb_api_key: str | None = None) -> None:
        self._requests = requests
        self._wandb_api_key = wandb_api_key
        # The SDK imports its parts on first use; doing it here keeps threads from doing it at the same time.
        sdk = requests.sdk
        self._files, self._jobs, self._models = sdk.files, sdk.fine_tuning.jobs, sdk.models

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    @classmethod
    def from_settings(cls, settings: Settings, *, read_attempts: int = READ_ATTEMPTS) -> SdkControlPlane:
        """Wire the adapter with the fleet's rate limit. Raises CredentialsRefused when there is no usable key."""
        wandb = settings.wandb_api_key
        wandb_api_key = wandb.get_secret_value().strip() if wandb else None
        secrets = (wandb_api_key,) if wandb_api_key else ()
        requests = SdkRequests.from_settings(settings, secrets=secrets, read_attempts=read_attempts)
        return cls(requests, wandb_api_key)

    def close(self) -> None:
        """Close the connections."""
        self._requests.close()

    # files

    def upload_file(self, path: Path, name: str) -> str:
        """See `ControlPlane`. Raises InvalidInput when the file cannot be read."""
        try:
            with path.open("rb") as content:
                file = File(file_name=name, content=content, content_type="application/jsonl")
                longer_s = path.stat().st_size / UPLOAD_BYTES_PER_S
                upload = self._requests.once(lambda: self._files.upload(file=file, purpose="fine-tune"), longer_s)
                return file_of(upload).id
        except OSError as error:
            raise InvalidInput(f"the training file {path.name} cannot be read: {error.strerror}") from error

    def find_files(self, name: str) -> list[RemoteFile]:
        def page(number: int) -> list[Listed[RemoteFile]]:
            listed = self._files.list(page=number, page_size=PAGE_SIZE, search=name, purpose="fine-tune").data
            return [(file.id, file) for file in map(file_of, listed)]

        return [file for file in self._requests.pages(page) if file.name == name]

    def delete_file(self, file_id: str) -> None:
        try:
            self._requests.once(lambda: self._files.delete(file_id=file_id))
        except RemoteFailed:
            return  # gone already: what was asked for

    # fine-tuning jobs

    def create_job(self, order: JobOrder) -> RemoteJob:
        """See `ControlPlane`. Raises InvalidInput for a W&B project without a W&B key."""
        parameters: dict[str, Any] = {}
        if order.steps is not None:
            parameters["training_steps"] = order.steps
        if order.learning_rate is not None:
            parameters["learning_rate"] = order.learning_rate
        optional: dict[str, Any] = {}
        if order.validation_files:
            optional["validation_files"] = list(order.validation_files)
        if order.targets:
            # with a weight each: the SDK drops targets without one and reports nothing
            optional["classifier_targets"] = [
                {
                    "name": target.name,
                    "labels": list(target.labels),
                    "weight": target.weight,
                    "loss_function": "multi_class" if target.multi else "single_class",
                }
                for target in order.targets
            ]
        if order.suffix:
            optional["suffix"] = order.suffix
        if order.wandb_project:
            optional["integrations"] = [self._wandb(order.wandb_project)]
        with _closed_factory():
            return self._requests.once(
                lambda: job_of(
                    self._jobs.create(
                        model=order.base_model,
                        job_type="classifier",
                        training_files=[TrainingFile(file_id=file, weight=1) for file in order.training_files],
                        hyperparameters=ClassifierTrainingParameters(**parameters),
                        auto_start=False,
                        **optional,
                    )
                )
            )

    def find_job(self, training_file_id: str) -> RemoteJob | None:
        def page(number: int) -> list[Listed[RemoteJob]]:
            found: list[Any] = self._jobs.list(page=number, page_size=PAGE_SIZE).data or []
            # Jobs of a kind that this SDK cannot read are none of ours.
            return [(id_of(entry), job_of(entry) if hasattr(entry, "training_files") else None) for entry in found]

        with _closed_factory():
            ours = [job for job in self._requests.pages(page) if training_file_id in job.training_files]
        return min(ours, key=lambda job: job.created_at) if ours else None

    def check_factory(self) -> None:
        with _closed_factory():
            self._requests.read(lambda: self._jobs.list(page=0, page_size=1))

    def get_job(self, job_id: str) -> RemoteJob:
        return self._requests.read(lambda: job_of(self._jobs.get(job_id=job_id)))

    def start_job(self, job_id: str) -> None:
        self._requests.once(lambda: self._jobs.start(job_id=job_id))

    def cancel_job(self, job_id: str) -> None:
        self._requests.once(lambda: self._jobs.cancel(job_id=job_id))

    # models

    def list_models(self) -> list[RemoteModel]:
        return self._requests.read(lambda: [model_of(card) for card in self._models.list().data or []])

    def get_model(self, model_id: str) -> RemoteModel:
        return self._requests.read(lambda: model_of(self._models.retrieve(model_id=model_id)))

    def archive_model(self, model_id: str) -> None:
        self._requests.once(lambda: self._models.archive(model_id=model_id))

    def unarchive_model(self, model_id: str) -> None:
        self._requests.once(lambda: self._models.unarchive(model_id=model_id))

    def delete_model(self, model_id: str) -> None:
        self._requests.once(lambda: self._models.delete(model_id=model_id))

    def check_key(self) -> None:
        self.list_models()

    def _wandb(self, project: str) -> WandbIntegration:
        if not self._wandb_api_key:
            raise InvalidInput("--wandb-project needs WANDB_API_KEY in the worker's environment")
        return WandbIntegration(project=project, api_key=self._wandb_api_key)


@contextlib.contextmanager
def _closed_factory() -> Iterator[None]:
    """Name the remedy where Mistral no longer lets this account fine-tune."""
    try:
        yield
    except LabelmillError as error:
        cause = error.__cause__
        status = cause.status_code if isinstance(cause, MistralError) else None
        wrong_model = isinstance(cause, MistralError) and "invalid_model" in cause.body
        if status not in (403, 404, 405, 410) or wrong_model:
            raise
        raise FactoryClosed(
            "Mistral does not let this account fine-tune classifiers any more; train with --method embedding instead "
            f"({error.message})"
        ) from error
