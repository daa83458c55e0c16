"""Thresholds of allowances, and notifications to the vendor."""

from pathlib import Path

from alembic import op

from control.db import run_script

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql"))
