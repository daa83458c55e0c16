"""Several customers of an organization, and its checkout sessions."""

from pathlib import Path

from alembic import op

from control.db import run_script

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql"))
