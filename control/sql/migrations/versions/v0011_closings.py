"""Overage of subscriptions that are over, until it is known whether it was billed."""

from pathlib import Path

from alembic import op

from control.db import run_script

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql"))
