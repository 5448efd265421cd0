"""`ControlPlane` on Mistral's own SDK, but for the retired fine-tuning jobs (`fine_tuning.py`). One instance serves
every thread of a process; `sdk_requests.py` says how requests are sent."""

from __future__ import annotations

from pathlib import Path

from labelmill.core.settings import Settings
from labelmill_worker.mistral.decoding import listed_model, model_of
from labelmill_worker.mistral.fine_tuning import FineTuningJobs
from labelmill_worker.mistral.remote_files import RemoteFiles
from labelmill_worker.mistral.sdk_requests import READ_ATTEMPTS, SdkRequests
from labelmill_worker.ports.control_plane import JobOrder, RemoteFile, RemoteJob, RemoteModel


class SdkControlPlane:
    """`wandb_api_key`: goes into the order of a job that reports to W&B."""

    def __init__(self, requests: SdkRequests, wandb_api_key: str | None = None) -> None:
        self._requests = requests
        # The SDK imports its parts on first use; doing it here keeps threads from doing it at the same time.
        self._models = requests.sdk.models
        self._files = RemoteFiles(requests, "fine-tune")
        self._jobs = FineTuningJobs(requests, wandb_api_key)

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

    def upload_file(self, path: Path, name: str, expiry_hours: int) -> str:
        """See `ControlPlane`. Raises InvalidInput when the file cannot be read."""
        return self._files.upload(path, name, expiry_hours)

    def find_files(self, name: str) -> list[RemoteFile]:
        return self._files.find(name)

    def find_files_of(self, training_id: str) -> list[RemoteFile]:
        return self._files.find_beginning_with(f"{training_id}-")

    def delete_file(self, file_id: str) -> None:
        self._files.delete(file_id)

    # fine-tuning jobs

    def create_job(self, order: JobOrder) -> RemoteJob:
        return self._jobs.create(order)

    def find_job(self, training_file_id: str) -> RemoteJob | None:
        return self._jobs.find(training_file_id)

    def check_factory(self) -> None:
        self._jobs.check()

    def get_job(self, job_id: str) -> RemoteJob:
        return self._jobs.get(job_id)

    def start_job(self, job_id: str) -> None:
        self._jobs.start(job_id)

    def cancel_job(self, job_id: str) -> None:
        self._jobs.cancel(job_id)

    # models

    def list_models(self) -> list[RemoteModel]:
        def read() -> list[RemoteModel]:
            return [model for model in map(listed_model, self._requests.entries("/v1/models")) if model is not None]

        return self._requests.read(read)

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
