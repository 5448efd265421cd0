"""Every error of Labelmill.

LabelmillError                  one clear sentence, and the exit code of a command that ends with it
  Permanent                     trying again cannot help
    InvalidInput                arguments or input that are wrong                       exit 2
      KeyTaken                  the idempotency key stands for something else           exit 2
    NotFound                    no such job, dataset or model                           exit 2
    WorkerUnable                this worker cannot do it; another one may
      CredentialsRefused        Mistral refused the key                                 exit 5
      StorageRefused            no such bucket, a key that may not, no extra for S3     exit 2
    RequestRefused              Mistral refused one request for its content (400, 413, 422)
    RemoteFailed                Mistral ended a job, or knows no such thing
    FactoryClosed               the account cannot fine-tune classifiers
    BillingRequired             the account has no billing for what was asked (402)
    ModelUnavailable            the account's plan allows no request of the model
    BudgetReached               a batch is paused, and goes on by `retry`               exit 4
      MonthlyLimitReached       Mistral's tokens of the month are used up               exit 4
      CapReached                the job's cap, or the installation's of the month       exit 4
    DatabaseOutdated            tables are missing or of another version                exit 7
      DatabaseNewer             … of one that a newer Labelmill made                    exit 7
    DatabaseUnsuitable          its encoding, file system or machine cannot serve       exit 2
  Retryable                     will pass: try again, not before `retry_after_s`
    RateLimited                 429
    RemoteUnavailable           5xx, no connection
      Unanswered                time-outs, cut connections: it may have been paid for
    MalformedAnswer             an answer that failed its checks
      UnusableContent           a chat model's own words that are not an answer
    StorageUnavailable          the storage of files does not answer
    DatabaseUnavailable         the database cannot be reached, or written to           exit 7
    BrokerUnavailable           Redis cannot be reached, or takes no messages
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from labelmill.contracts import exit_codes
from labelmill.contracts.field_names import Naming, as_option, as_parameter, first_field, write_names
from labelmill.contracts.reported_limits import ReportedLimits
from labelmill.contracts.storable_text import storable


@dataclass(frozen=True, slots=True)
class Refusal:
    """What tells an HTTP answer that refuses something apart from others."""

    status: int
    fields: frozenset[str]  #: Of the request, those that it names.
    is_of_model: bool  #: It says that the model is not valid.


class LabelmillError(Exception):
    """Base of all errors. `code` is the stable word stored in SQL and shown in JSON.

    `message` names fields of a request as Python parameters; `message_for` names them as another caller does.
    """

    exit_code = exit_codes.FAILED
    code = "error"
    refusal: Refusal | None = None  #: Where it stands for an answer of Mistral's control plane.

    def __init__(self, message: str) -> None:
        self._sentence = storable(message)  # it may quote outside text, and is usually written to the database
        self.message = write_names(self._sentence, as_parameter)
        super().__init__(self.message)

    def message_for(self, naming: Naming) -> str:
        """The message with the fields of a request named as one kind of caller names them."""
        return write_names(self._sentence, naming)

    @property
    def stored(self) -> str:
        """The message as it is kept with a job."""
        return self.message_for(as_option)


class Permanent(LabelmillError):
    """`code`: where the error passes another one on, whose word it keeps."""

    code = "permanent"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code


class InvalidInput(Permanent):
    """`field`: of the request, the one that is wrong, where the fault is that of one."""

    exit_code = exit_codes.USAGE
    code = "invalid_input"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field or first_field(self._sentence)


class KeyTaken(InvalidInput):
    """`difference`: what the batch has that the submission has not, such as "other content"."""

    code = "key_taken"

    def __init__(self, batch_id: str, difference: str, *, can_be_cancelled: bool = True) -> None:
        way_out = f", or free it with `labelmill cancel {batch_id}`" if can_be_cancelled else ""
        super().__init__(
            f"the idempotency key stands for {batch_id}, which has {difference}: use another key{way_out}",
            field="idempotency_key",
        )


class NotFound(Permanent):
    exit_code = exit_codes.USAGE
    code = "not_found"


class WorkerUnable(Permanent):
    """This worker cannot do some work: it lacks a key, a file, or the knowledge of a newer version. Another one may.

    `is_about_mistral`: whatever needs Mistral cannot be done here, and not one job alone.
    """

    code = "worker_unable"
    is_about_mistral = False


class CredentialsRefused(WorkerUnable):
    exit_code = exit_codes.CREDENTIALS_REFUSED
    code = "credentials_refused"

    def __init__(self, message: str, *, is_about_mistral: bool = True) -> None:
        super().__init__(message)
        self.is_about_mistral = is_about_mistral  #: False: the key is good, but not for what was asked.


class StorageRefused(WorkerUnable):
    """The storage of files, or a file behind a URL, cannot be used with this process' settings."""

    exit_code = exit_codes.USAGE
    code = "storage_refused"


class RequestRefused(Permanent):
    """Refused for what it contains; `status` is the HTTP status."""

    code = "request_refused"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class RemoteFailed(Permanent):
    code = "remote_failed"


class FactoryClosed(Permanent):
    code = "factory_closed"


class BillingRequired(Permanent):
    """The account has no billing for what was asked (402)."""

    code = "billing_required"


class ModelUnavailable(Permanent):
    """The account's plan allows no request of this model at all."""

    code = "model_unavailable"


class BudgetReached(Permanent):
    """A batch stops before it spends more than it may, as `paused`."""

    exit_code = exit_codes.STOPPED_BY_BUDGET


class MonthlyLimitReached(BudgetReached):
    code = "monthly_limit"

    @classmethod
    def of(cls, model: str | None) -> Self:
        """For requests to a model."""
        return cls(
            f"Mistral's limit of tokens for {model} this month leaves too few for another request; "
            "retry the batch when the month is over or the limit is raised"
        )


class CapReached(BudgetReached):
    code = "cap_reached"


class DatabaseOutdated(Permanent):
    exit_code = exit_codes.DATABASE_UNUSABLE
    code = "database_outdated"


class DatabaseNewer(DatabaseOutdated):
    pass


class DatabaseUnsuitable(Permanent):
    exit_code = exit_codes.USAGE
    code = "database_unsuitable"


class Retryable(LabelmillError):
    """`retry_after_s`: the minimum delay before a retry; None leaves it to the caller."""

    code = "retryable"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimited(Retryable):
    """`limits`: what the refusal tells of the model's."""

    code = "rate_limited"

    def __init__(self, message: str, retry_after_s: float | None = None, limits: ReportedLimits | None = None) -> None:
        super().__init__(message, retry_after_s)
        self.limits = limits


class RemoteUnavailable(Retryable):
    code = "remote_unavailable"


class Unanswered(RemoteUnavailable):
    """A request was sent and no answer came: it counts as spent."""


class MalformedAnswer(Retryable):
    code = "malformed_answer"


class UnusableContent(MalformedAnswer):
    """A chat model answered with a refusal, nothing, or no labels: asked again, it will most likely do the same."""


class StorageUnavailable(Retryable):
    code = "storage_unavailable"


class DatabaseUnavailable(Retryable):
    exit_code = exit_codes.DATABASE_UNUSABLE
    code = "database_unavailable"


class BrokerUnavailable(Retryable):
    code = "broker_unavailable"
