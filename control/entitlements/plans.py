"""The catalogue file: the shape of `config/plans.yaml`, and the difference between two catalogues. Pure."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from common.settings_file import Location, SettingsConflict, SettingsModel
from control.entitlements.rates import RateBurst, RateRequests, RateSeconds
from quota.keys import METER_PATTERN
from quota.model import CONCURRENT_MAX, UNITS_MAX, OveragePolicy, RateLimit

Units = Annotated[int, Field(ge=0, le=UNITS_MAX)]
AmountMinor = Annotated[int, Field(ge=0, le=10**12)]
Meter = Annotated[str, Field(pattern=METER_PATTERN)]
PlanCode = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


class OverageTerms(SettingsModel):
    """What units beyond the allowance cost."""

    amount_minor: AmountMinor
    units: Annotated[int, Field(ge=1, le=UNITS_MAX)]
    """So many units cost `amount_minor`."""


class MeterTerms(SettingsModel):
    """One meter of a plan."""

    allowance: Units
    """Units included in a period."""
    overage: OverageTerms | None = None
    """null: nothing beyond has a price."""
    overage_max: Units | None = None
    """Units beyond the allowance that METERED may sell in a period; null: no cap."""


class Rate(SettingsModel):
    """`requests` every `seconds` on average, at most `burst` at once."""

    requests: RateRequests
    seconds: RateSeconds = 1
    burst: RateBurst = 1

    def value(self) -> RateLimit:
        return RateLimit(self.requests, self.seconds, self.burst)


class PlanTerms(SettingsModel):
    """One plan of the catalogue."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    policy: OveragePolicy
    """HARD_STOP refuses at the allowance, METERED sells overage."""
    currency: Annotated[str, Field(pattern=r"^[a-z]{3}$")]
    price_minor: dict[Literal["month", "year"], AmountMinor] = Field(default={})
    """What a month or a year costs, in minor units."""
    rate: Rate | None = None
    """null: no rate limit."""
    concurrent_max: Annotated[int, Field(ge=1, le=CONCURRENT_MAX)] | None = None
    """Requests under way at once; null: any number."""
    meters: Annotated[dict[Meter, MeterTerms], Field(min_length=1)]
    contact: bool = False
    """Sold by people, without a list price."""
    demo: bool = False
    """For trying out, not for sale."""

    @model_validator(mode="after")
    def _can_be_sold(self) -> Self:
        faults: list[tuple[Location, str]] = []
        if not self.price_minor and not self.contact and not self.demo:
            faults.append((("price_minor",), "is missing: a plan has a price, or contact: true, or demo: true"))
        if self.policy is OveragePolicy.METERED and not self.contact and not self.demo:
            faults += [
                (("meters", meter, "overage"), "is missing: METERED sells overage, which needs a price")
                for meter, terms in self.meters.items()
                if terms.overage is None
            ]
        if faults:
            raise SettingsConflict(faults)
        return self


class PlansFile(SettingsModel):
    """The catalogue: plan code -> plan."""

    plans: Annotated[dict[PlanCode, PlanTerms], Field(min_length=1)]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Each field that changed between two dumped plans, as `meters.api_calls.allowance 10000 -> 12000`."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return [
        f"{field} {_word(before.get(field))} -> {_word(after.get(field))}"
        for field in dict.fromkeys([*before, *after])
        if before.get(field) != after.get(field)
    ]


def _flat(content: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, object]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _word(value: object) -> str:
    return "none" if value is None else str(value)
