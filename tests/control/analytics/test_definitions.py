"""The worked examples of Stripe, ChartMogul and Baremetrics, asked of the endpoints."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from httpx import AsyncClient

from control.billing.history.annual_value import Discount
from control.http.context import Context
from tests.control.analytics.worth import State, keep, monthly, yearly

pytestmark = pytest.mark.usefixtures("a_day_in_november")


def at(year: int, month: int, day: int, hour: int = 12) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


async def asked(admin: AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    renamed = {{"since": "from", "until": "to"}.get(name, name): value for name, value in query.items()}
    response = await admin.get(f"/v1/analytics/{path}", params=renamed)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_stripes_mrr_of_100_monthly_and_50_yearly_subscriptions_is_12500_dollars(
    context: Context, admin: AsyncClient
) -> None:
    states = [State(f"m{n}", f"sub_m{n}", at(2025, 1, 1 + n % 28), items=(monthly(100),)) for n in range(100)]
    states += [State(f"y{n}", f"sub_y{n}", at(2025, 1, 1 + n % 28), items=(yearly(600),)) for n in range(50)]
    states += [State("t", "sub_t", at(2025, 1, 2), "trialing", (monthly(100),))]
    async with context.db.connection() as connection:
        await keep(connection, states)
    [usd] = (await asked(admin, "mrr", day="2025-02-01"))["currencies"]
    stripe = usd["definitions"][0]
    assert (stripe["definition"], stripe["mrr_minor"], stripe["organizations"]) == ("stripe", 1_250_000, 150)
    assert (stripe["arr_minor"], stripe["arpa_minor"], usd["trialing"]) == (15_000_000, 8333, 1)


async def test_the_bridge_between_definitions_is_what_they_see_differently(
    context: Context, admin: AsyncClient
) -> None:
    half = Discount("half", "repeating", percent_off=Decimal(50))
    async with context.db.connection() as connection:
        await keep(
            connection,
            [
                State("a", "sub_a", at(2025, 1, 5), items=(monthly(100),), discounts=(half,)),
                State("b", "sub_b", at(2025, 1, 5), items=(yearly(1000),)),
                State("b", "sub_b", at(2025, 1, 9), "unpaid", (yearly(1000),)),
                State("e", "sub_e", at(2025, 1, 9), items=(monthly(7),), currency="eur"),
            ],
        )
    eur, usd = (await asked(admin, "mrr", day="2025-01-31"))["currencies"]
    assert {each["definition"]: each["mrr_minor"] for each in usd["definitions"]} == {
        "stripe": 10_000,
        "baremetrics": 5_000,
        "chartmogul": 13_333,
    }
    assert [(each["from_"], each["to"], each["mrr_minor"], each["subscriptions"]) for each in usd["bridge"]] == [
        ("stripe", "baremetrics", -5_000, 1),
        ("baremetrics", "chartmogul", 8_333, 1),
    ]
    assert [each["mrr_minor"] for each in eur["definitions"]] == [700] * 3, "another currency is never added"


@pytest.mark.parametrize("definition", ["stripe", "chartmogul", "baremetrics"])
async def test_chartmoguls_syncalytics_is_new_expands_contracts_churns_and_is_reactivated(
    context: Context, admin: AsyncClient, definition: str
) -> None:
    gold = State("s", "sub_gold", at(2025, 1, 6), items=(yearly(500, quantity=4),))
    silver = State("s", "sub_silver", at(2025, 2, 9), items=(monthly(30, quantity=2),))
    async with context.db.connection() as connection:
        await keep(
            connection,
            [
                gold,
                silver,
                State("s", "sub_silver", at(2025, 3, 2), "canceled", silver.items),
                State("s", "sub_gold", at(2026, 1, 6), "canceled", gold.items),
                State("s", "sub_back", at(2026, 3, 1), items=(monthly(50, quantity=3),)),
            ],
        )
    answer = await asked(admin, "movements", definition=definition, since="2025-01-01", until="2026-04-01")
    rows = {row["start"][:7]: row for row in answer["movements"]}
    assert rows["2025-01"]["new_minor"] == 16_667
    assert rows["2025-02"]["expansion_minor"] == 6_000
    assert rows["2025-03"]["contraction_minor"] == -6_000
    assert rows["2026-01"]["churn_minor"] == -16_667
    assert rows["2026-01"]["end_minor"] == 0
    assert rows["2026-03"]["reactivation_minor"] == 15_000


async def the_hundred_dollars(context: Context) -> None:
    """Start 100, churn 10, contraction 10, expansion 10; and nothing new."""
    async with context.db.connection() as connection:
        await keep(
            connection,
            [
                State("keeps", "sub_1", at(2025, 1, 3), items=(monthly(50),)),
                State("leaves", "sub_2", at(2025, 1, 3), items=(monthly(10),)),
                State("shrinks", "sub_3", at(2025, 1, 3), items=(monthly(25),)),
                State("grows", "sub_4", at(2025, 1, 3), items=(monthly(15),)),
                State("leaves", "sub_2", at(2025, 2, 8), "canceled", (monthly(10),)),
                State("shrinks", "sub_3", at(2025, 2, 8), items=(monthly(15),)),
                State("grows", "sub_4", at(2025, 2, 8), items=(monthly(25),)),
            ],
        )


async def rates(admin: AsyncClient, month: str, until: str) -> dict[str, dict[str, Any]]:
    rows = (await asked(admin, "retention", since=month, until=until))["months"]
    return {row["definition"]: row for row in rows}


async def test_chartmoguls_example_loses_20_percent_gross_and_10_net(context: Context, admin: AsyncClient) -> None:
    await the_hundred_dollars(context)
    chartmogul = (await rates(admin, "2025-02-01", "2025-03-01"))["chartmogul"]
    assert (chartmogul["gross_churn"], chartmogul["net_churn"], chartmogul["nrr"]) == (0.2, 0.1, 0.9)


async def test_the_same_hundred_dollars_retain_90_percent_and_100_by_baremetrics_printed_formula(
    context: Context, admin: AsyncClient
) -> None:
    await the_hundred_dollars(context)
    found = await rates(admin, "2025-02-01", "2025-03-01")
    assert {name: row["nrr"] for name, row in found.items()} == {"stripe": 0.9, "chartmogul": 0.9, "baremetrics": 1.0}
    assert found["baremetrics"]["quick_ratio"] == 0.5
    assert {name: row["logo_churn"] for name, row in found.items()} == dict.fromkeys(found, 0.25)


async def test_stripes_subscriber_churn_counts_those_who_are_new_among_those_who_could_leave(
    context: Context, admin: AsyncClient
) -> None:
    await the_hundred_dollars(context)
    async with context.db.connection() as connection:
        rows = await connection.fetch("SELECT 1 FROM subscription_history")
        assert len(rows) == 7
        states = [State(f"o{n}", f"sub_{n}", at(2025, 1, 3), items=(monthly(10),)) for n in range(8)]
        states += [State(f"n{n}", f"sub_n{n}", at(2025, 2, 3), items=(monthly(10),)) for n in range(2)]
        states += [State("o1", "sub_1", at(2025, 2, 9), "canceled", (monthly(10),))]
        await keep(connection, states)
    found = await rates(admin, "2025-02-01", "2025-03-01")
    assert (found["stripe"]["logo_churn"], found["chartmogul"]["logo_churn"]) == (0.1, 0.125)


async def test_chartmoguls_other_formula_adds_up_the_rates_of_days(context: Context, admin: AsyncClient) -> None:
    lost = [
        State("a", "sub_a", at(2025, 1, 3), items=(monthly(100),)),
        State("a", "sub_a", at(2025, 2, 8), items=(monthly(95),)),
    ]
    async with context.db.connection() as connection:
        await keep(connection, lost)
    assert (await rates(admin, "2025-02-01", "2025-03-01"))["chartmogul"]["gross_churn_daily"] == 0.05
    gained = [
        lost[0],
        State("a", "sub_a", at(2025, 2, 8), items=(monthly(110),)),
        State("new", "sub_n", at(2025, 2, 8), items=(monthly(10),)),
    ]
    async with context.db.connection() as connection:
        await keep(connection, gained)
    assert (await rates(admin, "2025-02-01", "2025-03-01"))["chartmogul"]["net_churn_daily"] == -0.1


async def test_who_signs_up_and_cancels_within_a_month_has_churned(context: Context, admin: AsyncClient) -> None:
    async with context.db.connection() as connection:
        await keep(
            connection,
            [
                State("a", "sub_a", at(2025, 2, 3), items=(monthly(10),)),
                State("a", "sub_a", at(2025, 2, 20), "canceled"),
                State("b", "sub_b", at(2025, 1, 3), items=(monthly(10),)),
            ],
        )
    [month] = (await asked(admin, "movements", since="2025-02-01", until="2025-03-01"))["movements"]
    assert (month["new"], month["churned"], month["organizations_end"]) == (1, 1, 1)


async def test_what_changes_and_changes_back_on_one_day_is_no_movement(context: Context, admin: AsyncClient) -> None:
    async with context.db.connection() as connection:
        await keep(
            connection,
            [
                State("a", "sub_a", at(2025, 1, 3), items=(monthly(10),)),
                State("a", "sub_b", at(2025, 2, 3, 9), items=(monthly(12),)),
                State("a", "sub_a", at(2025, 2, 3, 10), "canceled", (monthly(10),)),
            ],
        )
    [month] = (await asked(admin, "movements", since="2025-02-01", until="2025-03-01"))["movements"]
    assert (month["expansion_minor"], month["contraction_minor"], month["churn_minor"]) == (200, 0, 0)
    opened = await asked(admin, "subscriptions", figure="expansion", since="2025-02-01", until="2025-03-01")
    assert [(row["subscription"], row["mrr_minor"]) for row in opened["subscriptions"]] == [
        ("sub_a", -1000),
        ("sub_b", 1200),
    ]


async def test_a_change_at_midnight_belongs_to_the_day_and_the_month_that_begin(
    context: Context, admin: AsyncClient
) -> None:
    async with context.db.connection() as connection:
        await keep(connection, [State("a", "sub_a", at(2025, 2, 1, 0), items=(monthly(10),))])
    january, february = (await asked(admin, "movements", since="2025-01-01", until="2025-03-01"))["movements"]
    assert (january["end_minor"], february["new_minor"]) == (0, 1000)
    assert (await asked(admin, "mrr", day="2025-01-31"))["currencies"] == []


async def test_cohorts_say_what_is_left_of_those_who_paid_first_in_a_month(
    context: Context, admin: AsyncClient
) -> None:
    async with context.db.connection() as connection:
        await keep(
            connection,
            [
                State("a", "sub_a", at(2026, 8, 3), items=(monthly(10),)),
                State("b", "sub_b", at(2026, 8, 9), items=(monthly(30),)),
                State("b", "sub_b", at(2026, 9, 9), "canceled"),
                State("a", "sub_a", at(2026, 10, 3), items=(monthly(25),)),
                State("c", "sub_c", at(2026, 9, 3), items=(monthly(5),)),
            ],
        )
    rows = (await asked(admin, "cohorts", since="2026-08-01"))["cohorts"]
    august = [
        (row["organizations"], row["mrr_minor"], row["logo_retention"], row["revenue_retention"])
        for row in rows
        if row["cohort"] == "2026-08-01"
    ]
    assert august[:3] == [(2, 4000, 1.0, 1.0), (1, 1000, 0.5, 0.25), (1, 2500, 0.5, 0.625)]
    assert next(row["start"] for row in rows if row["cohort"] == "2026-09-01") == "2026-09-01"


async def test_trials_convert_when_they_are_worth_something_afterwards(context: Context, admin: AsyncClient) -> None:
    async with context.db.connection() as connection:
        await keep(
            connection,
            [
                State("a", "sub_a", at(2026, 8, 3), "trialing", (monthly(10),)),
                State("a", "sub_a", at(2026, 8, 17), items=(monthly(10),)),
                State("b", "sub_b", at(2026, 8, 3), "trialing", (monthly(10),)),
                State("b", "sub_b", at(2026, 8, 17), "canceled", (monthly(10),)),
                State("c", "sub_c", at(2026, 8, 30), "trialing", (monthly(10),)),
            ],
        )
    [month] = (await asked(admin, "trials", currency="usd", since="2026-08-01", until="2026-09-01"))["months"]
    assert month == {"start": "2026-08-01", "began": 3, "converted": 1, "running": 1, "conversion": 0.5}
