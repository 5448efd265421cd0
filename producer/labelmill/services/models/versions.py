"""Promoting, rolling back, archiving and deleting versions.

What a fine-tuned model needs at Mistral is written down as a `remote_wish`, which a worker carries out: SQL is the
truth, the message that is sent afterwards is a hint.
"""

from __future__ import annotations

from sqlalchemy import delete as delete_rows
from sqlalchemy import insert, or_, select, update
from sqlalchemy.engine import Connection

from labelmill.contracts.bounds import check_plain_name
from labelmill.contracts.errors import InvalidInput, NotFound
from labelmill.contracts.states import RemoteAction
from labelmill.core.database import db_now, lock_name
from labelmill.core.database.tables import BatchRow, EvaluationRow, ModelAliasRow, ModelRow, PromotionRow, utc_now
from labelmill.core.jobs.tables import is_cancellable
from labelmill.services.models.resolving import ARCHIVED, DELETED, RAW_PREFIX, READY, find_version, ref_of

_SHOWN = 3


def promote(connection: Connection, ref: str) -> ModelRow:
    """Make `name@version` the one that the bare name means; an archived version is restored. Raises NotFound,
    InvalidInput."""
    row = find_version(connection, ref)
    if row.version == 0:
        raise InvalidInput(f"{ref} is an id of Mistral's and has no versions to promote", field="ref")
    if row.state not in (READY, ARCHIVED):
        raise InvalidInput(f"{ref} is not ready yet: its training goes on", field="ref")
    _remember_current(connection, row.name)
    connection.execute(insert(PromotionRow).values(name=row.name, model_no=row.no, at=utc_now()))
    _let_answer(connection, row)
    if row.remote_state == ARCHIVED or row.remote_wish == RemoteAction.ARCHIVE.value:
        request_remote_action(connection, row, RemoteAction.UNARCHIVE)
    return row


def rollback(connection: Connection, name: str) -> ModelRow:
    """Promote the version that was promoted before the current one; called again, the one before that. Raises NotFound,
    InvalidInput when there is none."""
    check_plain_name("model", name)
    current = _remember_current(connection, name)
    history = connection.execute(
        select(PromotionRow.no, PromotionRow.model_no)
        .where(PromotionRow.name == name, PromotionRow.undone.is_(False))
        .order_by(PromotionRow.no.desc())
    ).all()
    if not history and current is None:
        raise NotFound(f"there is no model {name!r} that was promoted; `labelmill models` lists them")
    undone, passed_over = [], []
    for entry in history:
        row = ModelRow(
            **connection.execute(select(ModelRow.__table__).where(ModelRow.no == entry.model_no)).mappings().one()
        )
        if current is not None and entry.model_no == current:
            undone.append(entry.no)
        elif row.state != READY:
            undone.append(entry.no)
            passed_over.append(f"{ref_of(row)} is {row.state}")
        else:
            connection.execute(update(PromotionRow).where(PromotionRow.no.in_(undone)).values(undone=True))
            _let_answer(connection, row)
            return row
    why = f" ({', '.join(dict.fromkeys(passed_over))})" if passed_over else ""
    raise InvalidInput(f"no other version of {name} was promoted before{why}", field="ref")


def archive(connection: Connection, ref: str, *, at_mistral: bool = True) -> ModelRow:
    """Archive a version: no new job can use it until it is promoted again. With `at_mistral` a fine-tuned model is
    archived there too, which stops its storage fee. Raises NotFound, InvalidInput while a job uses it."""
    row = _retire(connection, ref, ARCHIVED)
    if at_mistral and row.remote_state is None:
        _request_remote_action_if_ours(connection, row, RemoteAction.ARCHIVE)
    return row


def delete(connection: Connection, ref: str, *, at_mistral: bool = True) -> ModelRow:
    """Delete a version permanently, with `at_mistral` there too; its number is not reused, and its predictions stay.
    Raises NotFound, InvalidInput while a job uses it."""
    row = _retire(connection, ref, DELETED)
    connection.execute(delete_rows(ModelAliasRow).where(ModelAliasRow.model_no == row.no))
    if at_mistral:
        _request_remote_action_if_ours(connection, row, RemoteAction.DELETE)
    return row


def request_remote_action(connection: Connection, row: ModelRow, what: RemoteAction) -> None:
    """Record a remote action for a model, which a worker will do."""
    values = {"remote_wish": what.value, "remote_error": None, "next_look_at": db_now(), "attempts": 0}
    connection.execute(update(ModelRow).where(ModelRow.no == row.no).values(values))
    row.remote_wish = what.value


def _retire(connection: Connection, ref: str, state: str) -> ModelRow:
    row = find_version(connection, ref)
    if busy := _jobs_on(connection, row):
        more = " and others" if len(busy) > _SHOWN else ""
        verb = "use" if len(busy) > 1 else "uses"
        raise InvalidInput(f"{', '.join(busy[:_SHOWN])}{more} {verb} {ref}: wait for it, or cancel it", field="ref")
    _remember_current(connection, row.name)
    connection.execute(update(ModelRow).where(ModelRow.no == row.no).values(state=state, promoted=False))
    return row


def _jobs_on(connection: Connection, row: ModelRow) -> list[str]:
    """Unfinished jobs that use the model, under any of its names."""
    same = ModelRow.no == row.no
    if is_fine_tuned(row):
        # by its id at Mistral too: other versions in use prevent its removal there
        same = or_(same, (ModelRow.remote_model == row.remote_model) & (ModelRow.version == 0))
    numbers = select(ModelRow.no).where(same)
    batches = select(BatchRow.id).where(BatchRow.model_no.in_(numbers), is_cancellable(BatchRow))
    evaluations = select(EvaluationRow.id).where(EvaluationRow.model_no.in_(numbers), is_cancellable(EvaluationRow))
    limit = _SHOWN + 1
    # evaluations first: a person knows them rather than their inner batches
    return [*connection.scalars(evaluations.limit(limit)), *connection.scalars(batches.limit(limit))]


def is_fine_tuned(row: ModelRow) -> bool:
    """Whether the version has its own model at Mistral; vectors and prompts use Mistral's public models."""
    return row.method == "factory" and (row.remote_model or "").startswith(RAW_PREFIX)


def _request_remote_action_if_ours(connection: Connection, row: ModelRow, what: RemoteAction) -> None:
    """Record a remote action unless another version in use is the same model at Mistral."""
    if not is_fine_tuned(row):
        return
    shared = connection.scalar(
        select(ModelRow.no)
        .where(ModelRow.remote_model == row.remote_model, ModelRow.no != row.no)
        .where(ModelRow.state == READY, ModelRow.version > 0)
        .limit(1)
    )
    if shared is None:
        request_remote_action(connection, row, what)


def _let_answer(connection: Connection, row: ModelRow) -> None:
    connection.execute(update(ModelRow).where(ModelRow.name == row.name).values(promoted=ModelRow.no == row.no))
    connection.execute(update(ModelRow).where(ModelRow.no == row.no).values(state=READY))


def _remember_current(connection: Connection, name: str) -> int | None:
    """Record the promoted version if it is not recorded: first versions are promoted automatically. Returns it.

    No other transaction can change which version is promoted until this one ends."""
    lock_name(connection, "model", name)
    current = connection.scalar(select(ModelRow.no).where(ModelRow.name == name, ModelRow.promoted.is_(True)))
    latest = connection.scalar(
        select(PromotionRow.model_no)
        .where(PromotionRow.name == name, PromotionRow.undone.is_(False))
        .order_by(PromotionRow.no.desc())
        .limit(1)
    )
    if current is not None and current != latest:
        connection.execute(insert(PromotionRow).values(name=name, model_no=current, at=utc_now()))
    return current
