"""Pages of organizations: searched, filtered, and in an order that can be continued behind any of them.

The statements are composed here, and from nothing that a client sends but values: a filter that is not asked for must
not be in a statement, and an order must be the one of an index. One statement with all filters, each of them switched
off by a NULL, would read every organization.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

from control import sql
from control.cursors import CursorUnknown, Page
from control.db import Connection
from control.directory.summary import NEAR_FRACTION
from control.directory.terms import Question, key_start, question
from quota.keys import is_org

COUNTED_MAX: Final = 1_000
KEYS_MAX: Final = 1_000  # keys that a search finds by their beginning
BEHIND_ALL: Final = "\x7f"  # comes behind all characters of a key
FOUND_MAX: Final = 2_000  # organizations of a search that are looked up one by one
JOINED_MAX: Final = 30_000  # and those that are put together before they are sorted
STATUSES: Final = frozenset({"none", "active", "trialing", "grace", "suspended", "ended"})
BIGINT_MAX: Final = 2**63


class Sort(Enum):
    """What organizations are sorted by; its value is the column."""

    ID = "org"
    NAME = "name_key"
    CREATED = "created_at"
    USED = "used_fraction"
    MRR = "mrr_minor"
    RENEWAL = "renews_at"


@dataclass(frozen=True, slots=True)
class Order:
    sort: Sort = Sort.ID
    is_descending: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """Which organizations; None: whichever."""

    q: str | None = None
    plan: str | None = None
    status: str | None = None
    is_near_quota: bool | None = None
    has_failed_payment: bool | None = None
    is_in_shadow: bool | None = None
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class Count:
    found: int
    more: bool
    """There are more than were counted."""


@dataclass(frozen=True, slots=True)
class Many:
    """A search that finds too many organizations to be looked up one by one."""

    asked: Question
    is_joined: bool
    """They are so few that all of them are put together before they are sorted. Else the order is walked, and a page is
    full soon."""


Found = Sequence[str] | Many | None
"""What a search finds; None: nothing is searched for."""


class _Statement:
    """A condition, and the values that it names."""

    def __init__(self, chosen: Filter, found: Found) -> None:
        self.values: list[Any] = []
        # Words, not values: Postgres then knows how many there are of each, also where it keeps the plan.
        self.conditions = ["s.is_deleted" if chosen.is_deleted else "NOT s.is_deleted"]
        if chosen.plan is not None:
            self.conditions.append(f"s.plan = {self._value(chosen.plan)}")
        if chosen.status is not None:
            word = f"'{chosen.status}'" if chosen.status in STATUSES else self._value(chosen.status)
            self.conditions.append(f"s.status = {word}")
        if chosen.is_near_quota is not None:
            self.conditions.append(f"s.used_fraction {'>=' if chosen.is_near_quota else '<'} {NEAR_FRACTION}")
        if chosen.has_failed_payment is not None:
            self.conditions.append("s.payment_failed" if chosen.has_failed_payment else "NOT s.payment_failed")
        if chosen.is_in_shadow is not None:
            in_shadow = "s.org IN (SELECT o.id FROM organization o WHERE o.shadow)"
            self.conditions.append(in_shadow if chosen.is_in_shadow else f"NOT {in_shadow}")
        if isinstance(found, Many):
            self.conditions.append(self._search(found))
        elif found is not None:
            self.conditions.append(f"s.org = ANY({self._value(found)}::text[])")

    def begin_behind(self, order: Order, key: Any, org: str) -> None:
        sign = "<" if order.is_descending else ">"
        if order.sort is Sort.ID:
            self.conditions.append(f"s.org {sign} {self._value(org)}")
        else:
            column = order.sort.value
            self.conditions.append(f"(s.{column}, s.org) {sign} ({self._value(key)}, {self._value(org)})")

    @property
    def condition(self) -> str:
        return " AND ".join(self.conditions)

    def _value(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"

    def _search(self, found: Many) -> str:
        # Queries are written so that no others can be made of them: control/directory/terms.py.
        asked = found.asked
        matches = f"t.terms @@ {self._value(asked.begin)}::text::tsquery"
        if asked.inside is not None:
            inside = f"t.trigrams @@ {self._value(asked.inside)}::text::tsquery"
            inside += f" AND words_hold(t.terms, {self._value(asked.patterns)}::text[])"
            if asked.short is not None:
                inside += f" AND t.terms @@ {self._value(asked.short)}::text::tsquery"
            matches = f"({matches} OR ({inside}))"
        if found.is_joined:
            # By itself: PostgreSQL expects so few that it would walk the order.
            of_words = f"WITH t AS MATERIALIZED (SELECT t.org FROM organization_search t WHERE {matches})"  # noqa: S608  # our own words
            return f"s.org IN ({of_words} SELECT t.org FROM t)"  # noqa: S608  # as above
        return f"(SELECT {matches} FROM organization_search t WHERE t.org = s.org)"  # noqa: S608  # our own words


async def page(
    connection: Connection, chosen: Filter, searched: Found, order: Order, after: str | None, limit: int
) -> Page[str, str]:
    """The ids of organizations. `searched`: what `search` found. Raises CursorUnknown."""
    statement = _Statement(chosen, searched)
    if after is not None:
        key, org = _read_cursor(order.sort, after)
        if not await sql.directory.is_listed(connection, org=org):
            raise CursorUnknown("after")
        statement.begin_behind(order, key, org)
    direction = " DESC" if order.is_descending else ""
    columns = dict.fromkeys((order.sort.value, "org"))
    ordered = ", ".join(f"s.{column}{direction}" for column in columns)
    rows = await connection.fetch(
        f"SELECT s.org, s.{order.sort.value} AS key FROM organization_summary s WHERE {statement.condition} "  # noqa: S608  # composed of our own words; values are parameters
        f"ORDER BY {ordered} LIMIT {limit:d}",
        *statement.values,
    )
    last = rows[-1] if len(rows) == limit else None
    return Page([row["org"] for row in rows], None if last is None else _cursor(order.sort, last["key"], last["org"]))


async def every(connection: Connection, chosen: Filter, limit: int) -> list[str]:
    """The ids of all organizations, in their order, but at most so many."""
    statement = _Statement(chosen, await search(connection, chosen))
    rows = await connection.fetch(
        f"SELECT s.org FROM organization_summary s WHERE {statement.condition} ORDER BY s.org LIMIT {limit:d}",  # noqa: S608  # as above
        *statement.values,
    )
    return [row["org"] for row in rows]


async def count(connection: Connection, chosen: Filter, searched: Found) -> Count:
    """How many organizations there are, counted up to a bound. `searched`: what `search` found."""
    statement = _Statement(chosen, searched)
    found = await connection.fetchval(
        f"SELECT count(*) FROM (SELECT FROM organization_summary s WHERE {statement.condition} "  # noqa: S608  # as above
        f"LIMIT {COUNTED_MAX + 1}) AS counted",
        *statement.values,
    )
    return Count(min(found, COUNTED_MAX), found > COUNTED_MAX)


async def search(connection: Connection, chosen: Filter) -> Found:
    """The organizations that a search finds. What is inside of words is not looked for where more than FOUND_MAX have
    words that begin so."""
    if chosen.q is None or (asked := question(chosen.q)) is None:
        return None
    found = set(await sql.directory.orgs_of_beginnings(connection, begin=asked.begin, limit_rows=FOUND_MAX + 1))
    if len(found) > FOUND_MAX:
        return await _many(connection, Question(asked.begin))
    if asked.inside is not None:
        found |= set(
            await sql.directory.orgs_of_insides(
                connection,
                inside=asked.inside,
                short=asked.short,
                patterns=asked.patterns,
                limit_rows=FOUND_MAX + 1,
            )
        )
    if len(found) > FOUND_MAX:
        return await _many(connection, asked)
    start = key_start(chosen.q)
    if start is not None:
        behind = start + BEHIND_ALL
        found |= set(await sql.directory.orgs_of_keys(connection, first=start, behind=behind, limit_rows=KEYS_MAX))
    return sorted(found)


async def _many(connection: Connection, asked: Question) -> Many:
    beyond = await sql.directory.matches_more(connection, begin=asked.begin, inside=asked.inside, beyond=JOINED_MAX)
    return Many(asked, not beyond)


def _cursor(sort: Sort, key: Any, org: str) -> str:
    """An organization's id; with another order than by ids, what it was sorted by comes with it, since that may change
    from one page to the next."""
    if sort is Sort.ID:
        return org
    text = key.isoformat() if isinstance(key, datetime) else key
    return base64.urlsafe_b64encode(json.dumps([text, org], separators=(",", ":")).encode()).decode().rstrip("=")


def _read_cursor(sort: Sort, after: str) -> tuple[Any, str]:
    """Raises CursorUnknown."""
    if sort is Sort.ID:
        return after, after
    try:
        key, org = json.loads(base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)))
        key = _read_key(sort, key)
        if key is None or not is_org(org):
            raise CursorUnknown("after")
    except (ValueError, TypeError, OverflowError) as e:
        raise CursorUnknown("after") from e
    return key, org


def _read_key(sort: Sort, key: Any) -> Any:
    """None, or ValueError, for what `_cursor` never wrote."""
    match sort, key:
        case ((Sort.CREATED | Sort.RENEWAL), str()):
            at = datetime.fromisoformat(key)
            return None if at.tzinfo is None else at
        case Sort.USED, float() | int() if not isinstance(key, bool):
            return float(key)
        case Sort.MRR, int() if not isinstance(key, bool) and abs(key) < BIGINT_MAX:
            return key
        case Sort.NAME, str() if key.isprintable():
            return key
    return None
