"""Allowances of an upgrade, for the rest of the period in which it is paid."""

from pathlib import Path

from alembic import op

from control.db import run_script

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql"))
