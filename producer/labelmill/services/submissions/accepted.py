"""The two steps of a submission: the job is written to SQL, then its messages are sent."""

from __future__ import annotations

from dataclasses import dataclass

from labelmill.contracts.errors import BrokerUnavailable, LabelmillError
from labelmill.contracts.field_names import Notice
from labelmill.contracts.ids import Kind
from labelmill.contracts.job_kinds import KINDS
from labelmill.contracts.messages import JobMessage
from labelmill.core.jobs.dispatch import dispatch_batch
from labelmill.services.context import ServiceContext


@dataclass(frozen=True)
class Accepted:
    """A job that is written to SQL, so it will run. The caller shows its id and then calls `start`.

    `has_messages`: False where there is nothing to send, as for a batch that was submitted before; `inner_batches`:
    batches of the job that go on with it.
    """

    id: str
    kind: Kind
    state: str
    warnings: tuple[Notice, ...] = ()
    has_messages: bool = True
    inner_batches: tuple[str, ...] = ()


@dataclass(frozen=True)
class Submitted:
    """A job that was submitted, approved or retried, with warnings."""

    id: str
    kind: Kind
    state: str
    warnings: tuple[Notice, ...] = ()


def start(context: ServiceContext, accepted: Accepted) -> Submitted:
    """Send the messages of a job. The job is accepted and will run: an error while sending must not look like a
    refusal, or a person would submit and pay for it again."""
    warnings = accepted.warnings
    try:
        if accepted.has_messages:
            _send(context, accepted)
    except BrokerUnavailable as error:
        warnings += (Notice(f"{error.message}: the job is accepted and starts when Redis is back"),)
    except Exception as error:  # noqa: BLE001 - see above
        reason = error.message if isinstance(error, LabelmillError) else type(error).__name__
        warnings += (
            Notice(
                f"{accepted.id} is accepted, but its messages could not be sent ({reason}): it starts when recovery "
                "finds it"
            ),
        )
    return Submitted(accepted.id, accepted.kind, accepted.state, warnings)


def _send(context: ServiceContext, accepted: Accepted) -> None:
    if accepted.kind is Kind.BATCH:
        dispatch_batch(context.engine, context.sender, accepted.id)
    else:
        context.sender.send(KINDS[accepted.kind].task, [JobMessage(job_id=accepted.id)])
    for batch_id in accepted.inner_batches:
        dispatch_batch(context.engine, context.sender, batch_id)
