"""Alembic's entry: migrations run on the connection that `database.upgrade` opened."""

from alembic import context

from labelmill.core.database.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
