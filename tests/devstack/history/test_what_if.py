"""What if nothing had been otherwise: then all of the history comes out as it is recorded."""

import asyncio
from datetime import UTC, datetime, timedelta

from control import sql
from control.analytics.what_if import asking
from control.analytics.what_if.asking import Compared
from control.analytics.what_if.sold_plans import PlanChange
from control.db import Database
from tests.devstack.history.played import EXTENT, Played

UNTIL = datetime.fromtimestamp(EXTENT.ends_at, UTC)


def asked(history: Played, plan: str | None = None) -> list[Compared]:
    async def ask() -> list[Compared]:
        async with Database.open(history.dsn) as db, db.snapshot() as connection:
            catalogue = await asking.catalogue_of(connection)
            change = PlanChange(next((p for p in catalogue.plans.values() if p.code == plan), None))
            found = await sql.what_if.organizations(connection, after="", on_plan=None, limit_rows=500)
            since = UNTIL - timedelta(days=EXTENT.days + 1)
            return [await asking.ask(connection, each.id, since, UNTIL, change, catalogue) for each in found]

    return asyncio.run(ask())


def test_the_old_plan_over_its_own_history_reproduces_each_verdict_and_each_invoice(history: Played) -> None:
    compared = asked(history)
    assert len(compared) == EXTENT.organizations
    assert sum(each.recorded.requests for each in compared) > 1000
    assert [
        each.org for each in compared if each.recorded.refused or each.recorded.differing or each.recorded.served
    ] == []

    stripe = history.account["objects"]
    once = {coupon["id"] for coupon in stripe["coupon"].values() if coupon["duration"] == "once"}
    with_coupon_for_one = {
        invoice["id"]
        for invoice in stripe["invoice"].values()
        if {stripe["discount"][each]["source"]["coupon"] for each in invoice["discounts"]} & once
    }
    remade = [was for each in compared for was, _ in each.invoices]
    assert len(remade) > 2 * EXTENT.organizations
    differing = [
        (each.invoice.number, each.invoice.total_minor, each.again_minor)
        for each in remade
        if each.again_minor != each.invoice.total_minor and each.invoice.id not in with_coupon_for_one
    ]
    assert differing == []


def test_the_counters_are_those_of_the_database(history: Played) -> None:
    stored = history.rows(
        "SELECT org, extract(epoch FROM period_start)::bigint, meter, used, burnt, overage FROM usage_counter"
    )
    again = [
        (each.org, start, meter, counter.used, counter.burnt, counter.overage)
        for each in asked(history)
        for (start, meter), counter in each.recorded.used.items()
    ]
    assert sorted(again) == sorted(stored)


def test_a_plan_that_includes_less_would_have_refused_and_cost_otherwise(history: Played) -> None:
    compared = asked(history, "starter")
    refused = {each.org: len(each.otherwise.refused) for each in compared if each.otherwise.refused}
    assert refused, "larger organizations had used more than the smallest plan includes"
    for each in compared:
        for was, otherwise in each.invoices:
            if was.invoice.currency == "usd":
                assert otherwise.again_minor is not None
            elif was.invoice.total_minor:
                assert otherwise.again_minor is None, "the plan has no price in that currency"
