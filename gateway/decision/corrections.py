"""What becomes of a charge, by the outcome of its request. Pure: outcome, rules and units used in, a correction out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.settings.metering import Outcome, Refund

_NO_UNITS: Final[Mapping[str, int]] = {}


@dataclass(frozen=True, slots=True)
class Correction:
    """What is to be done with a charge."""

    given_back: bool = False
    refunds_max: int | None = None
    """Of what is given back: only while the period has had fewer refunds than that."""
    units: Mapping[str, int] = field(default_factory=dict)
    """Really used, where that differs from the charge: what it becomes if it is not given back."""

    @property
    def may_stay(self) -> bool:
        """Whether something may stay charged."""
        return not self.given_back or self.refunds_max is not None


STAYS: Final = Correction()
GIVEN_BACK: Final = Correction(given_back=True)


def correction_of(outcome: Outcome | None, rules: Refund, used: Mapping[str, int] = _NO_UNITS) -> Correction:
    """Of a request that was sent. `outcome`: None for an answer that went well; `used`: the units that the upstream has
    reported so far, where they differ from the charge."""
    if outcome not in rules.on:
        return Correction(units=used) if used else STAYS
    # What was never sent cost nobody anything, so nobody can farm it.
    refunds_max = None if outcome == "connect_failure" else rules.cap_per_period
    return Correction(given_back=True, refunds_max=refunds_max, units=used)


def correction_of_journaled(outcome: Outcome | None, rules: Refund) -> Correction:
    """Of a request whose charge is in the journal still: refunds cannot be counted towards a cap now, so only those
    without one are given."""
    correction = correction_of(outcome, rules)
    return GIVEN_BACK if not correction.may_stay else STAYS


def differing(reported: Mapping[str, int], estimates: Mapping[str, int]) -> dict[str, int]:
    """The units that differ from their estimates."""
    return {meter: units for meter, units in reported.items() if units != estimates[meter]}
