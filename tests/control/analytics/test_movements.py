"""Movements: from one balance to the next, exactly, whatever the history; and what is read of them is what there is."""

import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from httpx import AsyncClient

from control.analytics.amounts import monthly_minor, monthly_steps, per, plain
from control.billing.history.annual_value import Definition, Discount, Item
from control.http.context import Context
from tests.control.analytics.worth import DAY, Reference, State, keep

pytestmark = pytest.mark.usefixtures("a_day_in_november")

HISTORIES = 10_000
SEED = 20_261_129
STATUSES = ("active",) * 6 + ("trialing", "past_due", "unpaid", "paused", "canceled", "incomplete")
BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 700


def random_item(rng: random.Random) -> Item:
    interval = rng.choice(("month", "month", "month", "year", "week", "day"))
    return Item(
        price=f"price_{rng.randrange(5)}",
        quantity=rng.choice((1, 1, 1, 2, 7)),
        unit_amount=Decimal(rng.randrange(1, 100_000)) / rng.choice((1, 1, 10)),
        interval=interval,
        interval_count=rng.choice((1, 1, 1, 2, 3, 6) if interval == "month" else (1, 1, 2)),
        metered=rng.random() < 0.1,
    )


def random_discount(rng: random.Random) -> Discount:
    share = Decimal(rng.randrange(1, 1000)) / 10
    duration = rng.choice(("forever", "repeating", "once"))
    if rng.random() < 0.3:
        return Discount("c", duration, amount_off=Decimal(rng.randrange(1, 50_000)))
    return Discount("c", duration, percent_off=share)


def random_history(rng: random.Random, org: str) -> list[State]:
    """Of one organization: up to three subscriptions, which begin, change, end and begin again; some on one day."""
    states, currency = [], rng.choice(("usd", "usd", "eur"))
    for number in range(rng.choice((1, 1, 1, 2, 3))):
        at = BEGAN + timedelta(seconds=rng.randrange(DAYS * 86_400))
        for _ in range(rng.randrange(1, 6)):
            if rng.random() < 0.1:
                at = at.replace(hour=0, minute=0, second=0) + DAY  # midnight belongs to the day that begins
            states.append(
                State(
                    org,
                    f"sub_{org}_{number}",
                    at,
                    rng.choice(STATUSES),
                    tuple(random_item(rng) for _ in range(rng.choice((1, 1, 2)))),
                    tuple(random_discount(rng) for _ in range(rng.choice((0, 0, 1, 2)))),
                    currency,
                )
            )
            at += timedelta(seconds=rng.choice((3600, 86_400 * 5, 86_400 * 40)) + rng.randrange(1, 86_400))
    return states


def test_what_is_shown_of_movements_adds_up_though_none_of_them_is_a_whole_cent() -> None:
    rng = random.Random(SEED)
    for _ in range(1000):
        start = Decimal(rng.randrange(10**9))
        changes = [Decimal(rng.randrange(-(10**6), 10**6)) / 16 for _ in range(5)]
        steps = monthly_steps(start, changes)
        assert monthly_minor(start) + sum(steps) == monthly_minor(start + sum(changes))
        assert all(abs(step - each / 12) < 1 for step, each in zip(steps, changes, strict=True))


def test_amounts_round_half_up_and_exact_ones_have_no_zeros_that_say_nothing() -> None:
    assert [monthly_minor(Decimal(each)) for each in (6, 5, -6, -5, 18, 0)] == [1, 0, -1, 0, 2, 0]
    assert (plain(Decimal("2000.500")), plain(Decimal("1E+3")), plain(Decimal(0))) == ("2000.5", "1000", "0")
    assert (per(Decimal("2.5"), 1), per(Decimal(1), 0)) == (3, None)


async def test_start_and_movements_are_the_end_to_the_cent_on_10000_random_histories(
    context: Context, admin: AsyncClient
) -> None:
    rng = random.Random(SEED)
    histories = {f"o{number}": random_history(rng, f"o{number}") for number in range(HISTORIES)}
    async with context.db.connection() as connection:
        await keep(connection, [state for states in histories.values() for state in states])
        rows = await connection.fetch("SELECT * FROM mrr_movement ORDER BY org, definition, currency, day")
        again = await connection.fetch("SELECT * FROM mrr_movement_computed ORDER BY org, definition, currency, day")
    assert [tuple(row) for row in rows] == [tuple(row) for row in again]
    kept = defaultdict(list)
    for row in rows:
        change = Fraction(row["annual_after"] - row["annual_before"]) / 12
        kept[row["org"], row["definition"], row["currency"]].append((row["day"], row["kind"], change))
    totals: dict[tuple[str, str, str], Fraction] = defaultdict(Fraction)
    for org, states in histories.items():
        for definition in Definition:
            expected = Reference.of(definition.value, states, states[0].currency).kinds
            assert kept.get((org, definition.value, states[0].currency), []) == expected, (org, definition)
            for day, kind, change in expected:
                totals[definition.value, states[0].currency, f"{day:%Y-%m} {kind}"] += change
    for definition in Definition:
        for currency in ("usd", "eur"):
            await compare(admin, definition, currency, totals)


async def compare(
    admin: AsyncClient, definition: Definition, currency: str, totals: dict[tuple[str, str, str], Fraction]
) -> None:
    """What is answered, with the reference."""
    query = {"definition": definition.value, "currency": currency, "from": "2024-01-01", "to": "2026-06-01"}
    response = await admin.get("/v1/analytics/movements", params=query)
    assert response.status_code == 200, response.text
    balance, names = Fraction(0), ("new", "reactivation", "expansion", "contraction", "churn")
    end = 0
    for row in response.json()["movements"]:
        assert Fraction(row["annual_start"]) / 12 == balance
        assert row["start_minor"] == end
        for name in names:
            exact = totals[definition.value, currency, f"{row['start'][:7]} {name}"]
            assert abs(row[f"{name}_minor"] - exact) < 1
            balance += exact
        assert Fraction(row["annual_end"]) / 12 == balance
        end = row["end_minor"]
        assert row["start_minor"] + sum(row[f"{name}_minor"] for name in names) == end
        assert abs(end - balance) <= Fraction(1, 2)
    assert balance > 0


@pytest.mark.parametrize("definition", Definition)
async def test_each_figure_opens_to_the_subscriptions_that_come_to_it_exactly(
    context: Context, admin: AsyncClient, definition: Definition
) -> None:
    rng = random.Random(SEED + 1)
    async with context.db.connection() as connection:
        await keep(connection, [state for number in range(150) for state in random_history(rng, f"f{number}")])
    query = {"definition": definition.value, "currency": "usd"}
    period = {"from": "2024-06-01", "to": "2025-06-01"}
    months = (await admin.get("/v1/analytics/movements", params={**query, **period})).json()["movements"]
    [mrr] = [
        row
        for each in (await admin.get("/v1/analytics/mrr", params={"day": "2025-05-31"})).json()["currencies"]
        for row in each["definitions"]
        if (row["currency"], row["definition"]) == ("usd", definition.value)
    ]
    assert (mrr["annual"], mrr["mrr_minor"]) == (months[-1]["annual_end"], months[-1]["end_minor"])
    assert mrr["organizations"] == months[-1]["organizations_end"]
    balance = await opened(admin, {**query, "figure": "mrr", "to": "2025-06-01"})
    assert sum((each for _, each in balance), Fraction(0)) == Fraction(mrr["annual"])
    assert len(balance) == mrr["subscriptions"]
    for month in months:
        until = (date.fromisoformat(month["start"]) + timedelta(days=32)).replace(day=1)
        span = {"from": month["start"], "to": until.isoformat()}
        everything = Fraction(0)
        for kind in ("new", "reactivation", "expansion", "contraction", "churn"):
            rows = await opened(admin, {**query, "figure": kind, **span})
            total = sum((each for _, each in rows), Fraction(0))
            assert abs(total / 12 - month[f"{kind}_minor"]) < 1
            everything += total
        assert everything == Fraction(month["annual_end"]) - Fraction(month["annual_start"])


async def opened(admin: AsyncClient, query: dict[str, str]) -> list[tuple[str, Fraction]]:
    """All pages."""
    rows: list[tuple[str, Fraction]] = []
    after: str | None = None
    while True:
        asked = {**query, "limit": "40"} if after is None else {**query, "limit": "40", "after": after}
        response = await admin.get("/v1/analytics/subscriptions", params=asked)
        assert response.status_code == 200, response.text
        page = response.json()
        rows += [(each["subscription"], Fraction(each["annual"])) for each in page["subscriptions"]]
        after = page["next"]
        if after is None:
            return rows
