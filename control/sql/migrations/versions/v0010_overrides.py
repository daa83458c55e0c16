"""What an admin laid over an organization's terms outlives them."""

from pathlib import Path

from alembic import op

from control.db import run_script

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql"))
