"""Compares the counters in Redis with the sums of the events: where they differ, by how much, and why. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from control.entitlements.restore import Counters
from control.entitlements.restore_nodes import Window
from quota.calls.publication import counter_fields
from quota.model import OrganizationSnapshot

USED, BURNT, OVER, GRANT = "used", "burnt", "over", "grant"
NODE = "n"


class Cause(StrEnum):
    """The likely cause: what was seen beside the drift, not a proof."""

    COUNTER_LOST = "counter_lost"
    """The counter is gone, but its organization is not."""
    ROLLED_BACK = "rolled_back"
    """Redis' stream ends before what Postgres has written: Redis went back to an older state."""
    QUARANTINED = "quarantined"
    """Postgres put entries of the shard aside that Redis had counted."""
    CHANGED = "changed"
    """Somebody wrote the counter: events and stream agree with each other."""
    QUOTAS_CHANGED = "quotas_changed"
    """Of an API key, within the window. Redis begins to count a new window at the key's next charge, and the events
    may say more. That is no fault."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a shard when its counters were read."""

    rolled_back: bool = False
    quarantined: bool = False


@dataclass(frozen=True, slots=True)
class Drift:
    org: str
    field: str
    """Of the organization's hash: `used:<period start>:<meter>`, `burnt:…`, `over:…`, `grant:<id>`; and of the quota of
    an API key `n:k:<id>:<meter>:<window seconds>:<window start>`."""
    counted: int
    """What Redis holds, units."""
    events: int
    """What the events add up to, units."""
    cause: Cause

    @property
    def units(self) -> int:
        """Counter minus events: above 0 the organization would get too little, below 0 too much."""
        return self.counted - self.events

    @property
    def kind(self) -> str:
        return self.field.partition(":")[0]

    @property
    def is_fault(self) -> bool:
        return self.cause is not Cause.QUOTAS_CHANGED

    @property
    def ratio(self) -> Fraction:
        """Of what the events add up to."""
        return Fraction(abs(self.units), max(1, self.events))


def drifts(
    org: str, fields: Mapping[str, bytes], snapshot: OrganizationSnapshot, exact: Counters, evidence: Evidence
) -> list[Drift]:
    """`fields` and `snapshot` are one organization's hash, `exact` its counters by the events.

    A counter that publish drops with its period or grant is no drift. A missing counter of a published period or a
    listed grant counts as 0."""
    sums = dict(_pairs(counter_fields(exact.usage, exact.grant_used)))
    expected = {field for field in sums if _must_be_in_redis(field, snapshot)}
    counted = {field: int(value) for field, value in fields.items() if field.partition(":")[0] in _KINDS}
    differing = []
    for field in sorted(counted.keys() | expected):
        have, due = counted.get(field, 0), sums.get(field, 0)
        if have != due:
            differing.append(Drift(org, field, have, due, _cause(field in counted, have - due, evidence)))
    return differing


def node_drifts(
    org: str,
    snapshot: OrganizationSnapshot,
    exact: Mapping[Window, int],
    changed: frozenset[Window],
    evidence: Evidence,
) -> list[Drift]:
    """`exact`: what keys with quotas of their own have used in windows of this organization, by the events. `changed`:
    those of them in which the key's quotas were changed.

    A window is left out if Redis counts a later one already: it has ended."""
    counted = {(n.node, n.meter, n.window_seconds): n for n in snapshot.nodes}
    differing = []
    for window, units in exact.items():
        held = counted.get((window.node, window.meter, window.seconds))
        if held is not None and held.start > window.start:
            continue
        present = held is not None and held.start == window.start
        have, due = held.used if held is not None and present else 0, max(0, units)
        if have != due:
            cause = Cause.QUOTAS_CHANGED if window in changed else _cause(present, have - due, evidence)
            field = f"{NODE}:{window.node}:{window.meter}:{window.seconds}:{window.start}"
            differing.append(Drift(org, field, have, due, cause))
    return differing


_KINDS = (USED, BURNT, OVER, GRANT)


def _pairs(flat: list[str | int]) -> list[tuple[str, int]]:
    return [(str(field), int(units)) for field, units in zip(flat[::2], flat[1::2], strict=True)]


def _must_be_in_redis(field: str, snapshot: OrganizationSnapshot) -> bool:
    """Whether Redis must hold the counter, if its units are not 0."""
    kind, _, name = field.partition(":")
    if kind == GRANT:
        return any(grant.id == name for grant in snapshot.grants)
    return any(period.start == int(name.partition(":")[0]) for period in snapshot.periods)


def _cause(present: bool, units: int, evidence: Evidence) -> Cause:
    if evidence.rolled_back:
        return Cause.ROLLED_BACK
    if not present:
        return Cause.COUNTER_LOST
    if evidence.quarantined and units > 0:
        return Cause.QUARANTINED
    return Cause.CHANGED
