"""What Stripe says of customers, subscriptions and invoices, and the inbox of its webhooks."""

from pathlib import Path

from alembic import op

from control.db import run_script

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql"))
