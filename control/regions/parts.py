"""What works for one of several regions, and how it is put together."""

from control.db import Database
from control.regions.agent import Agent, Publishing
from control.regions.home import Home
from control.regions.service import LEASE_SECONDS, RegionService
from quota.ledger import Ledger

__all__ = ["RegionService", "open_region"]


def open_region(db: Database, ledger: Ledger, publisher: Publishing) -> RegionService | None:
    """None where there is one region."""
    if not db.region.several:
        return None
    home = Home(db, LEASE_SECONDS)
    return RegionService(db, home, Agent(db.region.name, home, ledger, publisher))
