"""`plans apply`: makes the database's plans those of the catalogue file.

The rule: a plan's version never changes. A changed plan becomes a new version, and every organization on the plan
gets it at once (its history shows since when); what it used in the period stays used. Prices of running subscriptions
are the billing provider's and do not follow. A plan that left the file is archived: in force where it is, given to
nobody else.

Redis follows by itself: the publisher of the running control plane finds each organization's newer version, or does
when it is started.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from common.clock import system_clock
from common.settings_file import load
from control import journal, sql
from control.db import Connection, Database
from control.entitlements.plans import PlansFile, PlanTerms, differences
from control.entitlements.rates import rate_columns, rate_content, rate_of
from control.ids import uuid7
from control.journal import Action, Author, Change
from control.moments import moment
from control.sql.plans import NewPlanMeter, NewPlanPrice

MOVED_AT_ONCE = 500  # organizations of one transaction: theirs is the only work that waits for it


@dataclass(frozen=True, slots=True)
class Stored:
    id: UUID
    version: int
    content: dict[str, Any]
    """As `PlanTerms` dumps it. Not a PlanTerms: a stricter rule must not make yesterday's plan unreadable."""
    archived: bool


def read(*files: Path | None) -> dict[str, PlanTerms]:
    """Several files as one catalogue; None is the packaged one. Raises SettingsError."""
    return {code: terms for file in files for code, terms in load(file, "plans.yaml", PlansFile).plans.items()}


def apply(dsn: str, *files: Path | None, dry_run: bool = False) -> list[str]:
    """The lines that tell what changed; none when nothing did. Raises SettingsError, StoreUnavailable, RightsMissing.

    Synchronous, with an event loop of its own: for the command line."""
    plans = read(*files)

    async def run() -> list[str]:
        async with Database.open(dsn) as db:
            author = Author("plans apply", str(uuid7()))
            return await apply_plans(db, plans, system_clock(), author, dry_run=dry_run)

    return asyncio.run(run())


class _OnlyAsked(Exception):  # it is no error: it rolls a transaction back
    """Ends the transaction of a dry run."""


class CatalogueChanged(Exception):
    """The catalogue is not the one that was to be changed: its text says how it differs."""


async def apply_plans(
    db: Database,
    plans: Mapping[str, PlanTerms],
    now: float,
    author: Author,
    *,
    dry_run: bool = False,
    prune: bool = True,
    expected: Mapping[str, int] | None = None,
) -> list[str]:
    """Idempotent. When it dies in between, the next run moves the organizations that are left. A dry run does the same
    and rolls it back, so what it tells is what would be done.

    `prune`: what is not named is archived. `expected`: the version of each plan that is in the catalogue; where it is
    another one, nothing changes, and CatalogueChanged is raised."""
    lines: list[str] = []
    moved = 0
    with suppress(_OnlyAsked):
        async with db.transaction() as connection:
            lines += await _change_plans(connection, plans, now, author, prune, expected)
            if dry_run:
                moved = await sql.plans.count_outdated(connection, at=moment(now))
                raise _OnlyAsked
        while count := await _move_organizations(db, now, author):
            moved += count
    if moved:
        lines.append(f"{moved} {'organization' if moved == 1 else 'organizations'} moved to the newest version")
    return lines


async def _change_plans(
    connection: Connection,
    plans: Mapping[str, PlanTerms],
    now: float,
    author: Author,
    prune: bool,
    expected: Mapping[str, int] | None,
) -> list[str]:
    lines: list[str] = []
    await sql.plans.lock_catalogue(connection)
    stored = {row.code: _stored(row) for row in await sql.plans.newest(connection)}
    if expected is not None:
        _check({code: plan.version for code, plan in stored.items() if not plan.archived}, expected)
    for code, terms in plans.items():
        lines += await _apply_plan(connection, code, stored.get(code), terms, now, author)
    for code, gone in stored.items():
        if prune and code not in plans and not gone.archived:
            await sql.plans.set_archived(connection, id=gone.id, at=moment(now))
            await _record(connection, author, now, "plan.archived", code, gone.version, gone.content)
            lines.append(f"{code}: archived; it stays in force where it is")
    return lines


def _check(versions: Mapping[str, int], expected: Mapping[str, int]) -> None:
    for code in sorted(versions.keys() | expected.keys()):
        if versions.get(code) != expected.get(code):
            is_now = f"has the version {versions[code]}" if code in versions else "is not in the catalogue"
            raise CatalogueChanged(f"The plan {code} {is_now}.")


async def _apply_plan(
    connection: Connection, code: str, old: Stored | None, terms: PlanTerms, now: float, author: Author
) -> list[str]:
    lines, content = [], terms.model_dump(mode="json")
    if old is not None and old.archived:
        await sql.plans.set_archived(connection, id=old.id, at=None)
        await _record(connection, author, now, "plan.restored", code, old.version, old.content)
        lines.append(f"{code}: back in the catalogue")
    if old is None:
        await _insert(connection, code, 1, terms, now)
        await _record(connection, author, now, "plan.added", code, 1, content)
        lines.append(f"{code}: new")
    elif changed := differences(old.content, content):
        await sql.plans.supersede(connection, id=old.id, at=moment(now))
        await _insert(connection, code, old.version + 1, terms, now)
        await _record(connection, author, now, "plan.changed", code, old.version + 1, content, old.content)
        lines.append(f"{code}: version {old.version + 1}: {', '.join(changed)}")
    return lines


async def _insert(connection: Connection, code: str, version: int, terms: PlanTerms, now: float) -> None:
    plan_id = uuid7()
    await sql.plans.insert_plan(
        connection,
        id=plan_id,
        code=code,
        version=version,
        name=terms.name,
        policy=terms.policy,
        currency=terms.currency,
        **rate_columns(terms.rate.value() if terms.rate else None),
        concurrent_max=terms.concurrent_max,
        contact=terms.contact,
        demo=terms.demo,
        created_at=moment(now),
    )
    meters = [
        NewPlanMeter(
            plan_id=plan_id,
            meter=meter,
            allowance=m.allowance,
            overage_max=m.overage_max,
            overage_amount_minor=m.overage.amount_minor if m.overage else None,
            overage_units=m.overage.units if m.overage else None,
        )
        for meter, m in terms.meters.items()
    ]
    await sql.plans.insert_plan_meter(connection, meters)
    prices = [NewPlanPrice(plan_id, interval, amount) for interval, amount in terms.price_minor.items()]
    await sql.plans.insert_plan_price(connection, prices)


async def _move_organizations(db: Database, now: float, author: Author) -> int:
    """Puts some of the organizations on superseded versions on the newest one; how many, 0 when none is left."""
    at = moment(now)
    async with db.transaction() as connection:
        orgs = await sql.plans.lock_outdated_organizations(connection, at=at, limit_rows=MOVED_AT_ONCE)
        rows = await sql.plans.outdated_entitlements(connection, orgs=orgs, at=at)
        ids = [row.id for row in rows]
        await sql.plans.close_outdated(connection, ids=ids, at=at)
        await sql.plans.insert_successors(
            connection,
            old_ids=ids,
            ids=[uuid7() for _ in rows],
            plan_ids=[row.plan_id for row in rows],
            effective_tos=[row.effective_to for row in rows],
        )
        await sql.plans.bump_publications(connection, orgs=[row.org for row in rows])
        changes = [
            Change(
                "entitlement.plan_version",
                row.org,
                {"plan": row.code, "plan_version": row.old_version},
                {"plan": row.code, "plan_version": row.version},
            )
            for row in rows
        ]
        await journal.record(connection, author, now, changes)
    return len(orgs)


def _stored(row: sql.plans.Plan) -> Stored:
    fields = ("name", "policy", "currency", "price_minor", "meters", "concurrent_max", "contact", "demo")
    rate = rate_of(row.rate_requests, row.rate_seconds, row.rate_burst)
    content = {field: getattr(row, field) for field in fields} | {"rate": rate_content(rate)}
    return Stored(row.id, row.version, content, row.archived_at is not None)


async def _record(
    connection: Connection,
    author: Author,
    now: float,
    action: Action,
    code: str,
    version: int,
    content: Mapping[str, Any],
    before: Mapping[str, Any] | None = None,
) -> None:
    after = {"plan": code, "version": version, **content}
    await journal.record(connection, author, now, [Change(action, None, before and {"plan": code, **before}, after)])
