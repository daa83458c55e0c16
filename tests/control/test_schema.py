from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest

from control import schema
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
    partitions = postgres.execute(
        postgres_dsn, "SELECT tableoid::regclass FROM usage_event WHERE occurred_at > '2031-01-01' ORDER BY 1"
    )
    assert sorted(partitions.split()) == ["usage_event_20310102", "usage_event_other", "usage_event_other"]


ALEMBIC_VERSION = """
    CREATE TABLE alembic_version (
        version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
    );
"""  # as Alembic makes it


def database(server: str, name: str) -> str:
    postgres.execute(server, f"CREATE DATABASE {name}")
    return f"{server.rpartition('/')[0]}/{name}"


def columns(dsn: str) -> str:
    return postgres.execute(
        dsn,
        "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns "
        "WHERE table_schema = 'public' ORDER BY table_name, ordinal_position",
    )


def test_a_database_that_alembic_has_migrated_goes_on_from_where_it_is(postgres_server: str, tmp_path: Path) -> None:
    dsn = database(postgres_server, "by_alembic")
    files = [migration.file.read_text() for migration in schema.migrations()]
    insert = f"INSERT INTO alembic_version VALUES ('{schema.migrations()[-1].version}');"
    postgres.execute(dsn, "\n".join([ALEMBIC_VERSION, *files, insert]))
    assert schema.migrate(dsn) == []
    for migration in schema.migrations():
        (tmp_path / migration.file.name).write_text(migration.file.read_text())
    (tmp_path / "9999_next.sql").write_text("CREATE TABLE next (id integer); ALTER TABLE next ADD COLUMN name text;")
    assert schema.migrate(dsn, directory=tmp_path) == ["9999"]
    assert postgres.execute(dsn, "SELECT version_num FROM alembic_version") == "9999"
    assert postgres.execute(dsn, "SELECT count(name) FROM next") == "0"


def test_all_migrations_from_the_first_make_the_same_schema_in_one_step_or_in_two(postgres_server: str) -> None:
    versions = [migration.version for migration in schema.migrations()]
    at_once, in_two = database(postgres_server, "at_once"), database(postgres_server, "in_two")
    assert schema.migrate(at_once) == versions
    assert schema.migrate(in_two, revision=versions[6]) == versions[:7]
    assert schema.migrate(in_two) == versions[7:]
    assert columns(in_two) == columns(at_once)


def test_watermarks_from_before_there_were_fences_have_one_and_so_have_those_that_an_old_writer_makes(
    postgres_server: str,
) -> None:
    dsn = database(postgres_server, "fences")
    schema.migrate(dsn, revision="0015")
    insert = "INSERT INTO usage_watermark (shard, stream_ms, stream_seq, committed_at) VALUES ({}, 7, 1, now())"
    postgres.execute(dsn, insert.format(0))
    schema.migrate(dsn)
    postgres.execute(dsn, insert.format(1))
    watermarks = postgres.execute(dsn, "SELECT stream_ms, stream_seq, fence FROM usage_watermark ORDER BY shard")
    assert watermarks.split() == ["7|1|0"] * 2


def test_a_migration_that_fails_leaves_the_schema_as_it_was(postgres_server: str, tmp_path: Path) -> None:
    dsn = database(postgres_server, "failing")
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (id integer);")
    (tmp_path / "0002_two.sql").write_text("CREATE TABLE two (id integer); SELECT 1 / 0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        schema.migrate(dsn, directory=tmp_path)
    assert columns(dsn) == ""


def test_a_schema_that_is_newer_than_this_release_is_left_alone_and_told(postgres_server: str) -> None:
    dsn = database(postgres_server, "newer")
    postgres.execute(dsn, f"{ALEMBIC_VERSION} INSERT INTO alembic_version VALUES ('9999');")
    with pytest.raises(StoreUnavailable, match="the schema is 9999, which this release"):
        schema.migrate(dsn)


def test_the_versions_of_migrations_follow_each_other_without_a_gap() -> None:
    versions = [migration.version for migration in schema.migrations()]
    assert versions == [f"{n:04}" for n in range(1, len(versions) + 1)]


def test_no_two_migrations_have_the_same_number() -> None:
    """A database that has one of them would never get the other."""
    versions = [each.version for each in schema.migrations()]
    assert len(set(versions)) == len(versions)
