"""What was used, what it earned and what it cost: days are counted once, and again where an event comes late."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from httpx import AsyncClient

from common.settings_file import SettingsError, load
from control.http.context import Context
from control.settings.costs import Cost, Costs
from control.usage.late_days import forget, late
from devstack import postgres
from tests.control.plane import MovedClock

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
async def nothing_used(context: Context, clock: MovedClock, postgres_dsn: str) -> None:
    clock.now = NOW.timestamp()
    postgres.execute(
        postgres_dsn,
        "ALTER TABLE usage_event DISABLE TRIGGER USER; DELETE FROM usage_event;"
        "ALTER TABLE usage_event ENABLE TRIGGER USER;"
        "DELETE FROM usage_day; DELETE FROM usage_day_counted; DELETE FROM invoice_ref; DELETE FROM billing_entry;"
        "DELETE FROM usage_counter; INSERT INTO organization (id, name, created_at)"
        " VALUES ('ue', 'Used', now()), ('ve', 'Other', now()) ON CONFLICT DO NOTHING",
    )


async def use(context: Context, at: datetime, units: int, meter: str = "api_calls", kind: str = "take") -> None:
    async with context.db.connection() as connection:
        number = await connection.fetchval("SELECT count(*)::int FROM usage_event")
        await connection.execute(
            "INSERT INTO usage_event (org, occurred_at, stream_seq, meter, shard, stream_ms, kind, request_id,"
            " period_start, units, overage) VALUES ('ue', $1, $2, $3, 0, 1, $4, 'r', $1, $5, 0)",
            at, number, meter, kind, units,
        )  # fmt: skip


def priced(context: Context, *costs: tuple[str, str, str]) -> None:
    made = [
        Cost.model_validate({"meter": meter, "currency": "usd", "from": since, "per_1000_units_minor": amount})
        for meter, since, amount in costs
    ]
    object.__setattr__(context, "costs", Costs(costs=tuple(made)))


async def asked(admin: AsyncClient, path: str, **query: str) -> dict[str, Any]:
    response = await admin.get(f"/v1/analytics/{path}", params={"from": "2026-10-01", "to": "2026-12-01", **query})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_days_are_counted_once_and_are_what_their_events_say(context: Context, admin: AsyncClient) -> None:
    for days in (40, 40, 39, 3, 1, 0):
        await use(context, NOW - timedelta(days=days), 5)
    await use(context, NOW - timedelta(days=39), -2, kind="settle")
    await use(context, NOW, 7, meter="tokens")
    first = await asked(admin, "usage")
    assert [(row["start"], row["meter"], row["calls"], row["units"]) for row in first["months"]] == [
        ("2026-10-01", "api_calls", 3, 13),
        ("2026-11-01", "api_calls", 3, 15),
        ("2026-11-01", "tokens", 1, 7),
    ]
    async with context.db.connection() as connection:
        counted = await connection.fetchval("SELECT count(*) FROM usage_day_counted")
        events = await connection.fetch(
            "SELECT (occurred_at AT TIME ZONE 'UTC')::date AS day, meter, sum(units)::bigint AS units FROM usage_event"
            " WHERE occurred_at < $1 GROUP BY 1, 2 ORDER BY 1, 2",
            datetime(2026, 11, 19, tzinfo=UTC),
        )
        kept = await connection.fetch("SELECT day, meter, units FROM usage_day ORDER BY 1, 2")
    assert counted == 31 + 18
    assert [tuple(row) for row in kept] == [tuple(row) for row in events]
    assert await asked(admin, "usage") == first


async def test_an_event_that_is_written_late_takes_its_day_out_which_is_counted_again(
    context: Context, admin: AsyncClient
) -> None:
    at = NOW - timedelta(days=10)
    await use(context, at, 5)
    assert (await asked(admin, "usage"))["months"][0]["units"] == 5
    await use(context, at, 6)
    async with context.db.transaction() as connection:
        await forget(connection, [int(at.timestamp()) // 86_400], NOW.timestamp())
    assert (await asked(admin, "usage"))["months"][0]["units"] == 11


def test_days_that_may_be_counted_already_are_late() -> None:
    days = [int(NOW.timestamp()) // 86_400 - age for age in (0, 1, 2, 30)]
    assert late(days, NOW.date()) == [date(2026, 10, 21), date(2026, 11, 18), date(2026, 11, 19)]


async def test_each_day_has_the_cost_that_was_in_force(context: Context, admin: AsyncClient) -> None:
    priced(context, ("api_calls", "2026-01-01", "100"), ("api_calls", "2026-11-11", "50"))
    await use(context, datetime(2026, 11, 10, 12, tzinfo=UTC), 1000)
    await use(context, datetime(2026, 11, 11, 12, tzinfo=UTC), 1000)
    november = (await asked(admin, "unit-economics", currency="usd"))["months"][1]
    assert (november["cost_minor"], november["calls"], november["cost_per_1000_calls_minor"]) == (150, 2, 75_000.0)


async def test_a_meter_without_a_cost_makes_the_cost_unknown_and_not_nothing(
    context: Context, admin: AsyncClient
) -> None:
    priced(context, ("api_calls", "2026-01-01", "100"))
    await use(context, NOW, 1000)
    await use(context, NOW, 1000, meter="tokens")
    answer = await asked(admin, "unit-economics", currency="usd")
    assert (answer["months"][1]["cost_minor"], answer["months"][1]["margin_minor"]) == (None, None)
    assert {row["meter"]: row["cost_minor"] for row in answer["meters"]} == {"api_calls": 100, "tokens": None}
    assert {row["cost_minor"] for row in (await asked(admin, "unit-economics", currency="eur"))["meters"]} == {None}


async def test_revenue_is_what_was_paid_less_what_was_given_back_and_currencies_are_apart(
    context: Context, admin: AsyncClient
) -> None:
    priced(context, ("api_calls", "2026-01-01", "1000"))
    async with context.db.connection() as connection:
        for number, (currency, paid) in enumerate((("usd", 9_000), ("usd", 1_000), ("eur", 500))):
            await connection.execute(
                "INSERT INTO invoice_ref (id, org, customer, status, currency, total_minor, amount_paid_minor,"
                " amount_remaining_minor, period_start, period_end, created_at, paid_at)"
                " VALUES ($1, 'ue', 'c', 'paid', $2, $3, $3, 0, $4, $4, $4, $4)",
                f"in_{number}", currency, paid, NOW,
            )  # fmt: skip
        for number, status in enumerate(("succeeded", "failed")):
            await connection.execute(
                "INSERT INTO billing_entry (id, kind, org, customer, amount_minor, currency, status, created_at)"
                " VALUES ($1, 'refund', 'ue', 'c', 2000, 'usd', $2, $3)",
                f"re_{number}", status, NOW,
            )  # fmt: skip
    for _ in range(4):
        await use(context, NOW, 100)
    november = (await asked(admin, "unit-economics", currency="usd"))["months"][1]
    assert (november["paid_minor"], november["refunded_minor"], november["revenue_minor"]) == (10_000, 2_000, 8_000)
    assert (november["revenue_per_1000_calls_minor"], november["margin_minor"]) == (2_000_000, 8_000 - 400)
    assert (await asked(admin, "unit-economics", currency="eur"))["months"][1]["revenue_minor"] == 500


async def test_organizations_are_ranked_by_what_they_used(context: Context, admin: AsyncClient) -> None:
    await use(context, NOW, 7)
    async with context.db.connection() as connection:
        await connection.execute(
            "INSERT INTO usage_counter (org, period_start, meter, used, burnt, overage)"
            " VALUES ('ue', $1, 'api_calls', 7, 1, 0), ('ve', $1, 'api_calls', 70, 0, 9)",
            NOW,
        )
    ranked = (await asked(admin, "usage"))["organizations"]
    assert [(row["org"], row["units"], row["grants"], row["overage"]) for row in ranked] == [
        ("ve", 70, 0, 9),
        ("ue", 7, 1, 0),
    ]


@pytest.mark.parametrize(
    ("text", "line", "fault"),
    [
        ("meter: API\n    currency: usd\n    from: 2026-01-01\n    per_1000_units_minor: 1", 2, "meter"),
        ("meter: a\n    currency: USD\n    from: 2026-01-01\n    per_1000_units_minor: 1", 3, "currency"),
        ("meter: a\n    currency: usd\n    from: 2026-02-30\n    per_1000_units_minor: 1", 4, "from"),
        ("meter: a\n    currency: usd\n    from: 2026-01-01\n    per_1000_units_minor: -1", 5, "per_1000_units_minor"),
        ("meter: a\n    currency: usd\n    from: 2026-01-01\n    per_1000_units_minor: 1\n    per: 2", 6, "per"),
        ("meter: a\n    currency: usd\n    from: 2026-01-01", 2, "per_1000_units_minor"),
    ],
)
def test_a_cost_that_is_wrong_is_named_by_its_line(tmp_path: Path, text: str, line: int, fault: str) -> None:
    file = tmp_path / "costs.yaml"
    file.write_text(f"costs:\n  - {text}\n")
    with pytest.raises(SettingsError, match=rf"costs.yaml:{line}: costs\[0\].{fault}: "):
        load(file, "costs.yaml", Costs)


def test_two_costs_of_a_meter_from_one_day_are_refused_and_the_packaged_file_has_none(tmp_path: Path) -> None:
    file = tmp_path / "costs.yaml"
    one = "  - { meter: a, currency: usd, from: 2026-01-01, per_1000_units_minor: 1.25 }\n"
    file.write_text(f"costs:\n{one}")
    assert load(file, "costs.yaml", Costs).of("a", "usd", date(2026, 1, 1)) == Decimal("1.25")
    file.write_text(f"costs:\n{one}{one}")
    with pytest.raises(SettingsError, match=r"costs.yaml:3: costs\[1\]: a in usd has a cost from 2026-01-01 already"):
        load(file, "costs.yaml", Costs)
    assert load(None, "costs.yaml", Costs).costs == ()
