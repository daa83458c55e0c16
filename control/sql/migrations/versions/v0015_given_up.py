"""Overage that Stripe refuses for good."""

from pathlib import Path

from alembic import op

from control.db import run_script

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql"))
