from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from control import db, schema
from control.db import StoreUnavailable
from devstack import postgres
from devstack.child import StackError
from devstack.ports import free_port


def test_migrating_again_and_by_several_at_once_leaves_one_schema(postgres_server: str) -> None:
    postgres.execute(postgres_server, "CREATE DATABASE racing")
    dsn = f"{postgres_server.rpartition('/')[0]}/racing"
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(schema.migrate, [dsn] * 3))
    schema.migrate(dsn)
    assert postgres.execute(dsn, "SELECT count(*) FROM alembic_version") == "1"


def test_a_postgres_that_is_away_is_told_as_such() -> None:
    with pytest.raises(StoreUnavailable):
        schema.migrate(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_journal SET actor = 'nobody'",
        "DELETE FROM audit_journal",
        "TRUNCATE audit_journal",
        "UPDATE usage_event SET units = 0",
        "DELETE FROM usage_event",
        "TRUNCATE usage_event",
        "DELETE FROM usage_event_20261122",
        "TRUNCATE usage_event_20261122",
        "TRUNCATE usage_event_other",
        "UPDATE plan SET name = 'cheaper'",
        "UPDATE plan SET concurrent_max = 1",
        "UPDATE plan_meter SET allowance = 1",
        "DELETE FROM plan_price",
    ],
)
def test_journal_events_and_plan_versions_cannot_be_changed_even_by_a_superuser(
    postgres_dsn: str, statement: str
) -> None:
    plan = "01a20563-d0f0-7b6c-a4e5-e5e1fe8a5fdc"
    postgres.execute(
        postgres_dsn,
        f"""
        SELECT create_usage_event_day('2026-11-22');
        INSERT INTO audit_journal VALUES (gen_random_uuid(), now(), 'a', 'b', NULL, NULL, NULL, 'c');
        INSERT INTO usage_event VALUES ('o', '2026-11-22 12:00Z', 0, 'm', 1, 2, 'take', 'r', now(), 1, 0)
            ON CONFLICT DO NOTHING;
        INSERT INTO plan VALUES ('{plan}', 'p', 1, 'P', 'HARD_STOP', 'usd', NULL, NULL, NULL, true, true, now())
            ON CONFLICT DO NOTHING;
        INSERT INTO plan_meter VALUES ('{plan}', 'm', 1) ON CONFLICT DO NOTHING;
        INSERT INTO plan_price VALUES ('{plan}', 'month', 1) ON CONFLICT DO NOTHING;
        """,
    )
    with pytest.raises(StackError, match="refused"):
        postgres.execute(postgres_dsn, statement)


def test_a_day_whose_events_are_in_the_default_partition_stays_there_and_loses_none(postgres_dsn: str) -> None:
    insert = "INSERT INTO usage_event VALUES ('o', '2031-01-0{} 12:00Z', {}, 'm', 1, 2, 'take', 'r', now(), 1, 0);"
    postgres.execute(postgres_dsn, insert.format(1, 1))
    postgres.execute(
        postgres_dsn, "SELECT create_usage_event_day('2031-01-01'); SELECT create_usage_event_day('2031-01-02')"
    )
    postgres.execute(postgres_dsn, insert.format(1, 2) + insert.format(2, 3))
    found = postgres.execute(
        postgres_dsn, "SELECT tableoid::regclass FROM usage_event WHERE occurred_at > '2031-01-01' ORDER BY 1"
    )
    assert sorted(found.split()) == ["usage_event_20310102", "usage_event_other", "usage_event_other"]


def test_every_statement_has_a_name_and_says_what_it_is_for() -> None:
    for file in db.SQL.glob("*.sql"):
        found = db.statements(file.stem)
        for name in found.available_queries:
            statement = getattr(found, name)
            if not name.endswith("_cursor"):
                assert statement.__doc__, f"{file.name}: {name}"
    assert {file.name for file in Path(db.SQL / "migrations" / "versions").glob("v*.sql")}
