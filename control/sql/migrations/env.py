"""What alembic runs: all missing migrations in one transaction, on the connection that `control.schema` opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
