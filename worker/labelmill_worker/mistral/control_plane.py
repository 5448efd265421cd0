"""`ControlPlane` on Mistral's own SDK. One instance serves every thread of a process.

The SDK is never given a RetryConfig: with one it would POST a job twice. Reads are repeated here a few times; whatever
makes or changes something is sent once, and the caller checks before it sends again. Every request has one
deadline for all of it: the SDK's own time-out is for each read.
"""

from __future__ import annotations

import contextlib
import contextvars
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
from mistralai.client import Mistral
from mistralai.client.errors import MistralError
from mistralai.client.models import ClassifierTrainingParameters, File, TrainingFile, WandbIntegration

from labelmill.contracts.errors import (
    FactoryClosed,
    InvalidInput,
    LabelmillError,
    MalformedAnswer,
    RemoteFailed,
    RemoteUnavailable,
)
from labelmill.core.settings import Settings
from labelmill_worker.mistral.breaker import CircuitBreaker
from labelmill_worker.mistral.client_config import ClientConfig, read_client_config
from labelmill_worker.mistral.deadline import call_within, cut_late_bodies
from labelmill_worker.mistral.decoding import file_of, id_of, job_of, model_of
from labelmill_worker.mistral.endpoint import usable_key, usable_url
from labelmill_worker.mistral.errors import REMOTE_ERRORS, translate_error
from labelmill_worker.mistral.ratelimit.blocking import fleet_gate, no_gate
from labelmill_worker.ports.control_plane import JobOrder, RemoteFile, RemoteJob, RemoteModel

Result = TypeVar("Result")
Entry = TypeVar("Entry")
Listed = tuple[str, Entry | None]  #: The id of what a page lists, and what it is; None: nothing that is of use here.

READ_ATTEMPTS = 3  #: Requests for one read, at most; the job's polling schedule takes over after that.
PAGE_SIZE = 100
UPLOAD_BYTES_PER_S = 100_000  #: An upload may take so much longer than other requests.
_statuses: contextvars.ContextVar[list[int]] = contextvars.ContextVar("statuses")  # of the call's answers so far
_MAX_PAGES = 10_000  # a server that ignores `page` must not hold a worker for ever


class SdkControlPlane:
    """`before_request` is called before every request: it waits for, or refuses by raising, what a limit forbids."""

    def __init__(
        self,
        api_key: str,
        url: str,
        *,
        timeout_s: float = 60,
        wandb_api_key: str | None = None,
        before_request: Callable[[], None] = no_gate,
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
        read_attempts: int = READ_ATTEMPTS,
    ) -> None:
        """Raises UnusableConnection when the environment names no usable way there."""
        self._secrets = tuple(secret for secret in (api_key, wandb_api_key) if secret)
        self._wandb_api_key = wandb_api_key
        self._before_request = before_request
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._timeout_s = timeout_s
        self._read_attempts = read_attempts
        self._breaker = CircuitBreaker()
        config = read_client_config(url, timeout_s)
        self._http = _http_client(config)
        sdk = Mistral(api_key=api_key, server_url=url.rstrip("/"), timeout_ms=int(timeout_s * 1000), client=self._http)
        # The SDK imports its parts on first use; doing it here keeps threads from doing it at the same time.
        self._files, self._jobs, self._models = sdk.files, sdk.fine_tuning.jobs, sdk.models

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    @classmethod
    def from_settings(cls, settings: Settings, *, read_attempts: int = READ_ATTEMPTS) -> SdkControlPlane:
        """Wire the adapter with the fleet's rate limit. Raises CredentialsRefused when there is no usable key."""
        wandb = settings.wandb_api_key
        return cls(
            usable_key(settings),
            usable_url(settings),
            timeout_s=settings.request_timeout_s,
            wandb_api_key=wandb.get_secret_value().strip() if wandb else None,
            before_request=fleet_gate(settings),
            read_attempts=read_attempts,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # files

    def upload_file(self, path: Path, name: str) -> str:
        """See `ControlPlane`. Raises InvalidInput when the file cannot be read."""
        try:
            with path.open("rb") as content:
                file = File(file_name=name, content=content, content_type="application/jsonl")
                longer_s = path.stat().st_size / UPLOAD_BYTES_PER_S
                upload = self._once(lambda: self._files.upload(file=file, purpose="fine-tune"), longer_s)
                return file_of(upload).id
        except OSError as error:
            raise InvalidInput(f"the training file {path.name} cannot be read: {error.strerror}") from error

    def find_files(self, name: str) -> list[RemoteFile]:
        def page(number: int) -> list[Listed[RemoteFile]]:
            listed = self._files.list(page=number, page_size=PAGE_SIZE, search=name, purpose="fine-tune").data
            return [(file.id, file) for file in map(file_of, listed)]

        return [file for file in self._pages(page) if file.name == name]

    def delete_file(self, file_id: str) -> None:
        try:
            self._once(lambda: self._files.delete(file_id=file_id))
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
            return self._once(
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
            ours = [job for job in self._pages(page) if training_file_id in job.training_files]
        return min(ours, key=lambda job: job.created_at) if ours else None

    def check_factory(self) -> None:
        with _closed_factory():
            self._read(lambda: self._jobs.list(page=0, page_size=1))

    def get_job(self, job_id: str) -> RemoteJob:
        return self._read(lambda: job_of(self._jobs.get(job_id=job_id)))

    def start_job(self, job_id: str) -> None:
        self._once(lambda: self._jobs.start(job_id=job_id))

    def cancel_job(self, job_id: str) -> None:
        self._once(lambda: self._jobs.cancel(job_id=job_id))

    # models

    def list_models(self) -> list[RemoteModel]:
        return self._read(lambda: [model_of(card) for card in self._models.list().data or []])

    def get_model(self, model_id: str) -> RemoteModel:
        return self._read(lambda: model_of(self._models.retrieve(model_id=model_id)))

    def archive_model(self, model_id: str) -> None:
        self._once(lambda: self._models.archive(model_id=model_id))

    def unarchive_model(self, model_id: str) -> None:
        self._once(lambda: self._models.unarchive(model_id=model_id))

    def delete_model(self, model_id: str) -> None:
        self._once(lambda: self._models.delete(model_id=model_id))

    def check_key(self) -> None:
        self.list_models()

    # how requests are sent

    def _wandb(self, project: str) -> WandbIntegration:
        if not self._wandb_api_key:
            raise InvalidInput("--wandb-project needs WANDB_API_KEY in the worker's environment")
        return WandbIntegration(project=project, api_key=self._wandb_api_key)

    def _once(self, call: Callable[[], Result], longer_s: float = 0.0) -> Result:
        self._before_request()
        self._breaker.check()  # last: what keeps a probe from being sent would leave it without an outcome
        try:
            answer = self._translated(call, longer_s)
        except LabelmillError as error:
            self._breaker.record(error)
            raise
        except BaseException:
            self._breaker.abandon()
            raise
        self._breaker.record(None)
        return answer

    def _translated(self, call: Callable[[], Result], longer_s: float) -> Result:
        statuses: list[int] = []
        _statuses.set(statuses)
        try:
            return call_within(call, self._timeout_s + longer_s)
        except REMOTE_ERRORS as error:
            # A cause that repeats a key would carry it into the logs.
            telling = any(secret in str(error) for secret in self._secrets)
            raise translate_error(error, self._secrets) from (None if telling else error)
        except LabelmillError:
            raise
        except Exception as error:
            if not statuses:
                raise  # a fault of ours: Mistral has said nothing yet
            raise MalformedAnswer(
                f"Mistral's answer cannot be read (status {statuses[-1]}, {type(error).__name__})"
            ) from None

    def _read(self, call: Callable[[], Result]) -> Result:
        for attempt in range(1, self._read_attempts):
            try:
                return self._once(call)
            except (RemoteUnavailable, MalformedAnswer):
                self._sleep(self._rng.uniform(0, 0.25 * 2**attempt))
        return self._once(call)

    def _pages(self, page: Callable[[int], list[Listed[Entry]]]) -> Iterator[Entry]:
        seen: set[str] = set()
        for number in range(_MAX_PAGES):
            entries = self._read(lambda number=number: page(number))  # type: ignore[misc]
            ids = {entry_id for entry_id, _ in entries}
            # A short page is no sign of the end: a server may cap `page_size`, and a job that is overlooked is paid
            # twice. The end is an empty page, or the same page again.
            if ids <= seen:
                return
            seen |= ids
            yield from (entry for _, entry in entries if entry is not None)


def _note_status(response: httpx.Response) -> None:
    """A response hook of httpx."""
    _statuses.get([]).append(response.status_code)


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


def _http_client(config: ClientConfig) -> httpx.Client:
    context = config.authorities.context()
    proxy = None
    if config.proxy is not None:
        auth = None if config.proxy.user is None else (config.proxy.user, config.proxy.password)
        is_tls = config.proxy.url.startswith("https:")
        proxy = httpx.Proxy(config.proxy.url, auth=auth, ssl_context=context if is_tls else None)

    def name_client(request: httpx.Request) -> None:
        request.headers["User-Agent"] = config.user_agent  # the SDK makes its own of what it is told

    return httpx.Client(
        follow_redirects=True,
        event_hooks={"request": [name_client], "response": [_note_status, cut_late_bodies]},
        proxy=proxy,
        verify=context,
        trust_env=False,
    )
