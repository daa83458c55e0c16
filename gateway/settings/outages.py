"""`degraded`: what is forwarded while Redis is away."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from common.settings_file import SettingsModel
from gateway.settings.values import Count


class Budget(SettingsModel):
    """What one worker may forward without a charge before the ledger has it: units of all meters of the requests."""

    units_per_org: Count = 1000
    units_total: Count = 100_000


class DegradedSettings(SettingsModel):
    """Routes with `degraded: allow`, while Redis is away."""

    journal: Path | None = None
    """A directory on local disk for what is forwarded without a charge. It is charged when Redis is back, and the next
    worker replays what a worker leaves behind. Machines do not share it."""
    budget: Budget = Budget()
    """503 beyond."""
    max_seconds: Annotated[float, Field(gt=0)] = 300
    """How long requests are forwarded in one outage; 503 after it."""
    seen_seconds: Annotated[float, Field(gt=0)] = 3600
    """Only organizations that the worker has seen admitted on the route within this time, and not refused since."""
