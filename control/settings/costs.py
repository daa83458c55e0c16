"""What serving costs the vendor: the shape of `config/costs.yaml`."""

from datetime import date
from decimal import Decimal
from typing import Annotated

from pydantic import Field, model_validator

from common.settings_file import SettingsConflict, SettingsModel
from quota.keys import METER_PATTERN


class Cost(SettingsModel):
    """The cost of a meter from a day on."""

    meter: Annotated[str, Field(pattern=METER_PATTERN)]
    currency: Annotated[str, Field(pattern="^[a-z]{3}$")]
    since: Annotated[date, Field(alias="from")]
    """The first day, UTC."""
    per_1000_units_minor: Annotated[Decimal, Field(ge=0, le=10**12)]
    """For 1,000 units of the meter, in minor units of the currency; fractions are usual."""


class Costs(SettingsModel):
    """All costs."""

    costs: Annotated[tuple[Cost, ...], Field(max_length=10_000)] = ()

    @model_validator(mode="after")
    def _each_begins_once(self) -> "Costs":
        faults, seen = [], set[tuple[str, str, date]]()
        for place, each in enumerate(self.costs):
            begins = each.meter, each.currency, each.since
            if begins in seen:
                faults.append(
                    (("costs", place), f"{each.meter} in {each.currency} has a cost from {each.since} already")
                )
            seen.add(begins)
        if faults:
            raise SettingsConflict(faults)
        return self

    def of(self, meter: str, currency: str, day: date) -> Decimal | None:
        """For 1,000 units on a day, in minor units; None: nobody has said."""
        known = [each for each in self.costs if (each.meter, each.currency) == (meter, currency) and each.since <= day]
        return max(known, key=lambda each: each.since).per_1000_units_minor if known else None
