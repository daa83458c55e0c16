"""How many requests of an organization may be under way at once."""

from pathlib import Path

from alembic import op

from control.db import run_script

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql"))
