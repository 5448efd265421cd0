"""What the emulator keeps: files, jobs and models, in memory or in a state folder that survives a restart."""

import shutil
import time
import uuid
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel

from labelmill.core.storage.new_files import replacing
from labelmill_ops.emulator.classifier import Classifier

Stored = TypeVar("Stored", bound=BaseModel)


class StoredFile(BaseModel):
    """An uploaded file, without its content."""

    id: str
    filename: str
    purpose: str
    num_bytes: int
    num_lines: int
    signature: str
    created_at: int
    mimetype: str = "application/jsonl"
    visibility: str = "workspace"
    owner: str | None = None  #: who alone may read it where its visibility is `user`
    source: str = "upload"
    sample_type: str = "instruct"
    expires_at: int | None = None


class StoredModel(BaseModel):
    """A fine-tuned model, without its weights."""

    id: str
    root: str
    job: str
    created: int
    targets: list[dict[str, Any]]
    name: str | None = None
    description: str | None = None
    archived: bool = False


class StoredJob(BaseModel):
    """A fine-tuning job, all but the W&B key, which is dropped on arrival."""

    id: str
    model: str
    auto_start: bool
    created_at: int
    modified_at: int
    training_files: list[str]
    validation_files: list[str]
    hyperparameters: dict[str, Any]
    status: str = "QUEUED"
    suffix: str | None = None
    integrations: list[dict[str, Any]] = []
    asked_targets: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []  #: known once validated
    metadata: dict[str, Any] = {}
    fine_tuned_model: str | None = None
    trained_tokens: int | None = None
    events: list[dict[str, Any]] = []  #: oldest first
    checkpoints: list[dict[str, Any]] = []  #: oldest first
    message: str | None = None  #: why it failed
    fate: str | None = None  #: the fault that awaits it
    fate_status: str | None = None  #: where it meets it


class StoredBatch(BaseModel):
    """A batch job."""

    id: str
    endpoint: str
    owner: str
    created_at: int
    timeout_hours: int
    input_files: list[str]
    requests: list[dict[str, Any]] | None  #: those that came with the order
    model: str | None = None
    agent_id: str | None = None
    metadata: dict[str, str] | None = None
    status: str = "QUEUED"
    total: int = 0  #: requests, once they are read
    succeeded: int = 0
    failed: int = 0
    errors: list[dict[str, Any]] = []
    output_file: str | None = None
    error_file: str | None = None
    outputs: list[bytes] | None = None  #: lines of results, of requests that came with the order
    started_at: int | None = None
    completed_at: int | None = None
    fate: str | None = None  #: the fault that awaits it
    fate_parameter: str | None = None


class Store:
    """Files, jobs and models by id, in the order they were made."""

    def __init__(self, state_dir: Path | None = None) -> None:
        """Open the state folder, if there is one, and take up what it holds."""
        self.files: dict[str, StoredFile] = {}
        self.jobs: dict[str, StoredJob] = {}
        self.batches: dict[str, StoredBatch] = {}
        self.models: dict[str, StoredModel] = {}
        self._contents: dict[str, bytes] = {}
        self._classifiers: dict[str, Classifier] = {}
        self._dir = state_dir
        if state_dir is not None:
            self.files = {file.id: file for file in self._saved("files", StoredFile)}
            self.jobs = {job.id: job for job in self._saved("jobs", StoredJob)}
            self.batches = {job.id: job for job in self._saved("batches", StoredBatch)}
            self.models = {model.id: model for model in self._saved("models", StoredModel)}

    def add_file(self, filename: str, purpose: str, content: bytes, **details: Any) -> StoredFile:
        """Keep a file; `details` are further fields of a `StoredFile`."""
        file = StoredFile(
            id=str(uuid.uuid4()),
            filename=filename,
            purpose=purpose,
            num_bytes=len(content),
            num_lines=content.count(b"\n") + (not content.endswith(b"\n") and bool(content)),
            signature=md5(content, usedforsecurity=False).hexdigest(),
            created_at=int(time.time()),
            **details,
        )
        self.files[file.id] = file
        if self._dir is None:
            self._contents[file.id] = content
        else:
            _write(self._dir / "files" / f"{file.id}.content", content)
            self._save("files", file.id, file)
        return file

    def content_of(self, file_id: str) -> bytes:
        """Return a file's content. Raises KeyError."""
        if self._dir is None:
            return self._contents[file_id]
        if file_id not in self.files:
            raise KeyError(file_id)
        return (self._dir / "files" / f"{file_id}.content").read_bytes()

    def drop_expired_files(self) -> None:
        """Forget the files whose time is over."""
        now = time.time()
        for file in [file for file in self.files.values() if file.expires_at is not None and file.expires_at <= now]:
            self.delete_file(file.id)

    def delete_file(self, file_id: str) -> None:
        """Forget a file. Raises KeyError."""
        del self.files[file_id]
        self._contents.pop(file_id, None)
        if self._dir is not None:
            self._forget("files", file_id)
            (self._dir / "files" / f"{file_id}.content").unlink(missing_ok=True)

    def save_job(self, job: StoredJob) -> None:
        """Keep a job as it is now."""
        self.jobs[job.id] = job
        self._save("jobs", job.id, job)

    def delete_job(self, job_id: str) -> None:
        """Forget a job, as if it had never been. Raises KeyError."""
        del self.jobs[job_id]
        self._forget("jobs", job_id)

    def save_batch(self, job: StoredBatch) -> None:
        """Keep a batch job as it is now."""
        self.batches[job.id] = job
        self._save("batches", job.id, job)

    def delete_batch(self, job_id: str) -> None:
        """Forget a batch job. Raises KeyError."""
        del self.batches[job_id]
        self._forget("batches", job_id)

    def add_model(self, job: StoredJob, classifier: Classifier) -> StoredModel:
        """Keep the model a job trained, under `job.fine_tuned_model`."""
        if job.fine_tuned_model is None:
            message = "the job has no model name yet"
            raise ValueError(message)
        targets = [target.as_json() for target in classifier.targets]
        model = StoredModel(
            id=job.fine_tuned_model, root=job.model, job=job.id, created=int(time.time()), targets=targets
        )
        self._classifiers[model.id] = classifier
        if self._dir is not None:
            folder = self._weights_dir(model.id)
            folder.mkdir(parents=True, exist_ok=True)
            classifier.save(folder)
        self.save_model(model)
        return model

    def save_model(self, model: StoredModel) -> None:
        """Keep a model's description as it is now."""
        self.models[model.id] = model
        self._save("models", model.id, model)

    def classifier_of(self, model_id: str) -> Classifier:
        """Return a model's classifier, read from the state folder if need be. Raises KeyError."""
        if model_id not in self.models:
            raise KeyError(model_id)
        if model_id not in self._classifiers:
            self._classifiers[model_id] = Classifier.load(self._weights_dir(model_id))
        return self._classifiers[model_id]

    def delete_model(self, model_id: str) -> None:
        """Forget a model. Raises KeyError."""
        del self.models[model_id]
        self._classifiers.pop(model_id, None)
        if self._dir is not None:
            self._forget("models", model_id)
            shutil.rmtree(self._weights_dir(model_id), ignore_errors=True)

    def _weights_dir(self, model_id: str) -> Path:
        if self._dir is None:
            raise KeyError(model_id)
        return self._dir / "weights" / _file_name(model_id)

    def _saved(self, kind: str, of: type[Stored]) -> Iterator[Stored]:
        folder = (self._dir or Path()) / kind
        stored = [of.model_validate_json(path.read_bytes()) for path in folder.glob("*.json")]
        yield from sorted(stored, key=_created)

    def _save(self, kind: str, name: str, item: BaseModel) -> None:
        if self._dir is not None:
            _write(self._dir / kind / f"{_file_name(name)}.json", item.model_dump_json().encode())

    def _forget(self, kind: str, name: str) -> None:
        if self._dir is not None:
            (self._dir / kind / f"{_file_name(name)}.json").unlink(missing_ok=True)


STORE = web.AppKey("store", Store)


def _created(item: BaseModel) -> int:
    return int(getattr(item, "created", 0) or getattr(item, "created_at", 0))


def _file_name(name: str) -> str:
    return name.replace(":", "_").replace("/", "_")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:  # a killed emulator leaves no half of a file
        file.write(content)
