"""A decision explained: what was asked, what each rule says of it, and what would change that."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from control.decisions.admittance import Checked
from control.sql.decisions import Event, Published, Refusal
from quota.evaluation import Evaluation, Outcome
from quota.periods import Period
from quota.remedies import Case, Change, alternatives, remedy
from quota.routes import Tunnel
from quota.terms import Terms


class Source(StrEnum):
    """Where a decision is known from."""

    REFUSAL = "refusal"
    USAGE_EVENT = "usage_event"
    HYPOTHETICAL = "hypothetical"


class Doubt(StrEnum):
    """What an explanation does not know."""

    TERMS_OF_NOW = "terms_of_now"
    """What was published then is not kept: these are the terms of now."""
    COUNTERS_DIFFER = "counters_differ"
    """The counters, as the events tell them, do not give what the ledger said."""
    NOT_WRITTEN = "not_written"
    """Events of that time are not in the database yet."""
    LIMITS_OF_NOW = "limits_of_now"
    """The key's own limits are those of now."""
    NO_TERMS = "no_terms"
    """Nothing is known of what was published."""
    ROUTES_DIFFER = "routes_differ"
    """Gateways have different routes or environments: these are those of the ones that started last."""
    ROUTES_OF_BEFORE = "routes_of_before"
    """No gateway tells its routes now: these are those that were told last."""


@dataclass(frozen=True, slots=True)
class Explained:
    source: Source
    at: datetime
    org: str | None
    admitted: bool
    charges: Mapping[str, int]
    refusal: Refusal | None = None
    events: tuple[Event, ...] = ()
    """Of a charged request: its charge, and corrections of it."""
    key_id: str | None = None
    user_id: str | None = None
    terms: Terms | None = None
    published: Published | None = None
    """None: the terms are those of now."""
    period: Period | None = None
    evaluation: Evaluation | None = None
    """None: the ledger was not asked, or nothing is known of what it looked at."""
    changes: tuple[Change, ...] = ()
    """Each lifts one rule that refuses."""
    remedy: tuple[Change, ...] | None = ()
    """The smallest changes that together admit; None: none is known."""
    doubts: frozenset[Doubt] = field(default_factory=frozenset)
    checks: tuple[Checked, ...] = ()
    """Of a hypothetical request: what is looked at before the ledger is asked."""
    route: str | None = None
    method: str | None = None
    shadow: bool = False
    """A refusal would only be recorded, and the request goes on."""
    tunnel: Tunnel | None = None
    """What its connection would cost afterwards, where it switches to another protocol."""

    @property
    def refused_check(self) -> Checked | None:
        return next((each for each in self.checks if each.outcome is Outcome.REFUSED), None)


class KeyUnknown(Exception):
    """The organization has no such key."""


def explained_case(plain: Explained, case: Case, published: Published | None, doubts: set[Doubt]) -> Explained:
    """The same with what the rules say of the case."""
    evaluation = case.evaluate()
    together = remedy(case)
    return replace(
        plain,
        terms=case.terms,
        published=published,
        evaluation=evaluation,
        changes=tuple(alternatives(case, evaluation)),
        remedy=None if together is None else tuple(together),
        doubts=frozenset(doubts),
    )
