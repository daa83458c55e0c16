"""Who the ledger was vouched for on: epochs."""

from pathlib import Path

from alembic import op

from control.db import run_script

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    run_script(op.get_bind(), Path(__file__).with_suffix(".sql"))
