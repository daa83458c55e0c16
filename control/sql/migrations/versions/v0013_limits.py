"""Meters that may be at their limit, which an incident tells."""

from pathlib import Path

from alembic import op

from control.db import run_script

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql"))
