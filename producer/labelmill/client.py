"""The Python client: submit work, follow it, fetch what came of it. The command line does everything through here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from labelmill.contracts.errors import InvalidInput
from labelmill.contracts.job_kinds import RESTING
from labelmill.core.database import check_tables, connect_to_existing, reading, require_this_machine, writing
from labelmill.core.money.prices import PriceList
from labelmill.core.queue.sender import MessageSender
from labelmill.core.settings import Settings, load_producer_settings
from labelmill.core.storage.data_folder import shown_files
from labelmill.services.batches import submit_batch
from labelmill.services.evaluations import check_evaluation, find_evaluation, submit_evaluation
from labelmill.services.jobs import actions
from labelmill.services.jobs import documents as jobs
from labelmill.services.jobs.listing import Wanted, list_jobs
from labelmill.services.jobs.lost_reads import LostReads
from labelmill.services.results.reading import Only, read_results

_TABLES_S = 10.0  #: How soon a client notices that the tables were upgraded.


class Client:
    """A connection to a Labelmill installation. Close it, or use it as a context manager.

    `warnings` collects what did not stop a submission but should be known, such as Redis being down.
    Raises DatabaseUnavailable, DatabaseOutdated, DatabaseUnsuitable.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or load_producer_settings()
        self.engine = connect_to_existing(self.settings)
        self.sender = MessageSender.connect(self.settings)
        self.warnings: list[str] = []
        self._tables_looked_at = time.monotonic()
        try:
            check_tables(self.engine)
            require_this_machine(self.engine)
        except BaseException:
            self.close()
            raise

    def _require_tables(self) -> None:
        """An installation may be upgraded under a client that lives for months. Raises DatabaseOutdated."""
        if time.monotonic() >= self._tables_looked_at + _TABLES_S:
            check_tables(self.engine)
            self._tables_looked_at = time.monotonic()

    def close(self) -> None:
        """Close the connections to the database and to Redis. Jobs go on."""
        self.engine.dispose()
        self.sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def classify(self, source: str, model: str, **options: Any) -> Batch:
        """Submit a batch; see `submissions.classify.submit_batch` for the options. Raises InvalidInput, NotFound."""
        self._require_tables()
        batch_id = submit_batch(
            self.engine, self.sender, source=source, model=model, warn=self.warnings.append, **options
        )
        return Batch(self, batch_id)

    def evaluate(
        self,
        model: str,
        dataset: str,
        split: str = "test",
        *,
        calibrate: bool = False,
        announce: Callable[[str], None] = lambda _: None,
    ) -> Job:
        """Measure a model on a split of a dataset. `announce` is told the id once the job is accepted. Raises
        InvalidInput, NotFound."""
        self._require_tables()
        job_id = submit_evaluation(
            self.engine,
            self.sender,
            model=model,
            dataset=dataset,
            split=split,
            calibrate=calibrate,
            warn=self.warnings.append,
            announce=announce,
        )
        return Job(self, job_id)

    def compare(
        self,
        models: Sequence[str],
        dataset: str,
        split: str = "test",
        *,
        announce: Callable[[str], None] = lambda _: None,
    ) -> list[Job]:
        """One evaluation of each model on the same rows: those there are, new ones where there are none. When they have
        ended, `comparison` puts them side by side. `announce` is told the id of each new one. Raises InvalidInput,
        NotFound, before anything is paid for."""
        with writing(self.engine) as connection:
            versions = {check_evaluation(connection, model, dataset, split) for model in models}
        if len(versions) < 2:
            raise InvalidInput(f"{' and '.join(models)} are the same version: name two models or more")
        ids: list[str] = []
        for model in models:
            with writing(self.engine) as connection:
                job_id = find_evaluation(connection, model, dataset, split)
            if job_id is None:
                job_id = self.evaluate(model, dataset, split, announce=announce).id
            if job_id not in ids:
                ids.append(job_id)
        return [Job(self, job_id) for job_id in ids]

    def comparison(
        self, evaluations: Sequence[str], level: float = 0.05, margin: float | None = None
    ) -> dict[str, Any]:
        """The document of `labelmill compare --json`, from the ids of evaluations; `margin`: the loss of accuracy that
        would be accepted, as a share of rows. Raises NotFound, InvalidInput."""
        from labelmill.services.comparison import compare_evaluations  # noqa: PLC0415 - NumPy, which other commands spare

        with reading(self.engine) as connection:
            return compare_evaluations(connection, evaluations, level, margin)

    def job(self, job_id: str) -> Job:
        """A handle on any job, by id."""
        return Job(self, job_id)

    def status(self, job_id: str) -> dict[str, Any]:
        """The status document of any job; a dataset's files as paths in this client's data folder. Raises NotFound."""
        with reading(self.engine) as connection:
            document = jobs.status_document(connection, job_id, PriceList(self.settings.prices))
        if document.get("files"):
            document["files"] = shown_files(self.settings.data_dir, document["files"])
        return document

    def jobs(
        self,
        kind: str | None = None,
        state: str | None = None,
        limit: int = 20,
        after: str | None = None,
        *,
        inner: bool = False,
    ) -> list[dict[str, Any]]:
        """The latest jobs, newest first, those that are older than the job `after`. `inner`: the batches that trainings
        and evaluations run for themselves too. Raises InvalidInput, NotFound."""
        wanted = Wanted.of(kind, state, limit, after, inner=inner)
        with reading(self.engine) as connection:
            return list_jobs(connection, wanted, PriceList(self.settings.prices))

    def results(self, job_id: str, *, only: Only | None = None, follow: bool = False) -> Iterator[dict[str, Any]]:
        """The rows of a batch or an evaluation in input order, answered ones; with `follow` until it ends, beyond
        outages of the database. Raises NotFound, DatabaseUnavailable."""
        return read_results(self.engine, job_id, only=only, follow=follow)

    def cancel(self, job_id: str) -> None:
        """Stop a job; what was paid for is kept. Raises NotFound, InvalidInput when it has ended."""
        actions.cancel(self.engine, self.sender, job_id)

    def retry(self, job_id: str) -> None:
        """Run the failed rows of a batch again. Raises NotFound, InvalidInput."""
        actions.retry(self.engine, self.sender, job_id, warn=self.warnings.append)


class Job:
    """A job somebody submitted."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client = client
        self.id = job_id

    def status(self) -> dict[str, Any]:
        """Its status document, as `labelmill status --json` prints it."""
        return self._client.status(self.id)

    def wait(self, timeout_s: float | None = None, poll_s: float = 0.5) -> dict[str, Any]:
        """Look until it ends or waits for approval. Returns the last status document.

        While the database is away it looks on for a quarter of an hour, which the client's `warnings` tell. Raises
        TimeoutError, DatabaseUnavailable.
        """
        ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        lost = LostReads(self.id, self._client.warnings.append)
        while (document := lost.read(self.status, until=ends_at))["state"] not in RESTING:
            if ends_at is not None and time.monotonic() >= ends_at:
                raise TimeoutError(f"{self.id} is still {document['state']} after {timeout_s:g} s")
            time.sleep(poll_s)
        return document

    def cancel(self) -> None:
        """Stop it."""
        self._client.cancel(self.id)


class Batch(Job):
    """A bulk classification."""

    def results(self, *, only: Only | None = None, follow: bool = False) -> Iterator[dict[str, Any]]:
        """Its rows in input order."""
        return self._client.results(self.id, only=only, follow=follow)

    def retry(self) -> None:
        """Run its failed rows again."""
        self._client.retry(self.id)
