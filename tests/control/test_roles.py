"""The control plane's database role: all that it needs, and no way to change the journal or the events."""

from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from httpx import AsyncClient
from pydantic import SecretStr
from redis.asyncio import Redis
from typer.testing import CliRunner

from control import roles, schema
from control.audit.verify import verify
from control.db import RightsMissing
from control.http.context import Context
from control.journal import Author
from control.moments import moment
from control.settings.control_plane import Retention, Settings
from control.usage.archive import Archiver, ArchiveRefused, archive, days
from devstack import postgres
from devstack.child import StackError
from quota import keys
from quotagate.main import app
from tests.control.plane import Entitled

PROTECTED = (
    "audit_journal",
    "audit_seal",
    "audit_unsealed",
    "usage_event",
    "plan_meter",
    "plan_price",
    "usage_archive",
)


def as_user(dsn: str, user: str) -> str:
    return f"postgresql://{user}@{dsn.partition('@')[2]}"


@pytest.fixture(scope="module")
def owner_dsn(postgres_dsn: str) -> str:
    day = "SELECT create_usage_event_day('2026-11-22')"
    entry = "INSERT INTO audit_journal VALUES (gen_random_uuid(), now(), 'a', 'b', NULL, NULL, NULL, 'c')"
    postgres.execute(postgres_dsn, f"{day}; {entry}")
    return postgres_dsn


@pytest.fixture(scope="module", autouse=True)
def _filled(owner_dsn: str) -> None:
    """Statements are refused where there is something to change."""


@pytest.mark.parametrize(
    "statement",
    [
        *(f"{verb} {table}" for table in PROTECTED for verb in ("DELETE FROM", "TRUNCATE", "DROP TABLE")),
        "UPDATE audit_journal SET actor = 'nobody'",
        "UPDATE audit_seal SET hash = sha256('x')",
        "UPDATE usage_event SET units = 0",
        "UPDATE usage_event_20261122 SET units = 0",
        "DELETE FROM usage_event_20261122",
        "TRUNCATE usage_event_20261122",
        "DELETE FROM usage_event_other",
        "ALTER TABLE usage_event DETACH PARTITION usage_event_20261122",
        "INSERT INTO audit_seal VALUES (1, gen_random_uuid(), now(), sha256('x'))",
        "INSERT INTO audit_unsealed VALUES (gen_random_uuid())",
        "INSERT INTO usage_archived_sum VALUES ('2026-11-22', 'o', now(), 'm', 1, 0, 0)",
        "UPDATE alembic_version SET version_num = '0001'",
        "ALTER TABLE audit_journal DISABLE TRIGGER ALL",
        "DROP TRIGGER audit_journal_awaits_its_seal ON audit_journal",
        "CREATE TRIGGER mine BEFORE INSERT ON audit_journal FOR EACH ROW EXECUTE FUNCTION refuse_change()",
        "SET session_replication_role = replica",
        "SET ROLE postgres",
        "ALTER FUNCTION seal_audit_journal OWNER TO CURRENT_USER",
        "CREATE OR REPLACE FUNCTION audit_field(value text) RETURNS text LANGUAGE sql AS $$ SELECT '' $$",
        "CREATE TABLE mine (n int)",
        "SELECT await_audit_seal()",
    ],
)
def test_the_application_role_cannot_change_what_must_stay(application_dsn: str, statement: str) -> None:
    with pytest.raises(StackError, match=r"permission denied|must be owner|must be able to SET ROLE"):
        postgres.execute(application_dsn, statement)


def test_a_table_of_its_own_does_not_come_between_a_function_and_its_table(application_dsn: str) -> None:
    postgres.execute(
        application_dsn,
        "CREATE TEMP TABLE audit_seal (LIKE audit_seal); CREATE TEMP TABLE audit_unsealed (LIKE audit_unsealed);"
        "CREATE FUNCTION pg_temp.audit_field(value text) RETURNS text LANGUAGE sql AS $$ SELECT '' $$;"
        "SELECT seal_audit_journal(100)",
    )
    assert int(postgres.execute(application_dsn, "SELECT count(*) FROM audit_seal")) >= 1
    assert int(postgres.execute(application_dsn, "SELECT count(*) FROM audit_unsealed")) == 0


async def test_the_control_plane_does_all_its_work_as_the_application_role(
    context: Context, admin: AsyncClient, entitled: Entitled, redis: Redis
) -> None:
    org = await entitled()
    grant = {"meter": "api_calls", "units": 5, "expires_at": "2090-01-01T00:00:00Z", "reason": "test"}
    assert (await admin.post(f"/v1/organizations/{org}/grants", json=grant)).status_code == 201
    await redis.xadd(keys.events_key(0), {"e": f"t {uuid4().hex} {org} 1700000000 api_calls:3"})
    await context.writer.resume()
    while not await context.writer.write():
        pass
    await Archiver(context.db, None, context.clock).round()
    await context.sealer.seal()
    async with context.db.snapshot() as connection:
        assert await connection.fetchval("SELECT sum(units) FROM usage_event WHERE org = $1", org) == 3
        assert (await verify(connection)).broken is None
    rights = await roles.rights_of(context.db)
    assert (rights.superuser, rights.may_change) == (False, ())


async def test_only_the_owner_moves_days_and_retention_names_it(
    context: Context, owner_dsn: str, tmp_path: Path, redis: Redis
) -> None:
    day = moment(int(context.clock()) - 5 * 86_400).date()
    seconds = int(context.clock()) - 5 * 86_400
    await redis.xadd(keys.events_key(1), {"e": "t r acme 1700000000 api_calls:3"}, id=f"{seconds * 1000}-0")
    await context.writer.resume()
    while not await context.writer.write():
        pass
    with pytest.raises(ArchiveRefused, match="owner of usage_event"):
        [_ async for _ in archive(context.db, day + timedelta(days=1), tmp_path, context.clock, Author("t", "t"))]
    await Archiver(context.db, Retention(days=2, directory=tmp_path), context.clock).round()
    assert {row.day: row.file for row in await days(context.db)}[day] is None, "refused, and the day is here"
    retention = Retention(days=2, directory=tmp_path, dsn=SecretStr(owner_dsn))
    await Archiver(context.db, retention, context.clock).round()
    assert {row.day: row.file for row in await days(context.db)}[day] == f"usage_event_{day:%Y%m%d}.csv.gz"


def test_a_table_of_a_later_release_is_writable_after_its_migration_and_protected_ones_stay_so(
    owner_dsn: str, application_dsn: str
) -> None:
    postgres.execute(
        owner_dsn,
        "CREATE TABLE of_tomorrow (id bigserial PRIMARY KEY, n int);"
        f"GRANT ALL ON audit_seal TO {roles.APPLICATION_ROLE}",
    )
    insert = "INSERT INTO of_tomorrow (n) VALUES (1); UPDATE of_tomorrow SET n = 2; DELETE FROM of_tomorrow"
    with pytest.raises(StackError, match="permission denied"):
        postgres.execute(application_dsn, insert)
    assert roles.ask(application_dsn)[0].may_change == ("audit_seal",)
    schema.migrate(owner_dsn)
    postgres.execute(application_dsn, insert)
    assert roles.ask(application_dsn)[0].may_change == ()
    postgres.execute(owner_dsn, "DROP TABLE of_tomorrow")


def test_every_protected_table_is_there(owner_dsn: str) -> None:
    for table in (*roles.APPEND_ONLY, *roles.READ_ONLY):
        assert postgres.execute(owner_dsn, f"SELECT to_regclass('{table}')") == table


def test_an_owner_without_special_rights_migrates_once_the_role_is_there(postgres_server: str) -> None:
    owner, missing = f"owner_{uuid4().hex[:12]}", f"missing_{uuid4().hex[:12]}"
    postgres.execute(postgres_server, f"CREATE ROLE {owner} LOGIN")
    postgres.execute(postgres_server, f"CREATE DATABASE {owner} OWNER {owner}")
    dsn = as_user(postgres_server, owner).rpartition("/")[0] + f"/{owner}"
    with pytest.raises(RightsMissing, match=f"CREATE ROLE {missing} NOLOGIN"):
        schema.migrate(dsn, missing)
    with pytest.raises(StackError, match="does not exist"):
        postgres.execute(dsn, "SELECT FROM organization")  # nothing of it is half done
    schema.migrate(dsn)
    assert roles.ask(dsn)[0].may_change == tuple(sorted((*roles.APPEND_ONLY, *roles.READ_ONLY)))
    postgres.execute(postgres_server, f"DROP DATABASE {owner}")
    postgres.execute(postgres_server, f"DROP ROLE {owner}")


def test_migrating_as_the_application_role_is_refused_in_plain_words(application_dsn: str) -> None:
    result = CliRunner().invoke(app, ["migrate", "--dsn", application_dsn])
    assert result.exit_code == 1
    assert "is not the owner of the tables" in result.stderr
    with pytest.raises(RightsMissing):
        schema.migrate(application_dsn.rpartition("/")[0] + "/postgres")  # where there is no schema yet


def test_the_doctor_tells_a_role_that_could_change_the_journal(owner_dsn: str, application_dsn: str) -> None:
    run = CliRunner()
    good = run.invoke(app, ["doctor", "--postgres", application_dsn])
    assert (good.exit_code, good.stdout[:6]) == (0, "good  ")
    bad = run.invoke(app, ["doctor", "--postgres", owner_dsn])
    assert (bad.exit_code, bad.stdout[:6]) == (1, "WRONG ")
    assert "is a superuser" in bad.stdout
    gone = run.invoke(app, ["doctor", "--postgres", owner_dsn + "_gone"])
    assert (gone.exit_code, gone.stdout[:6]) == (1, "WRONG ")


async def test_a_control_plane_with_too_many_rights_says_so_at_its_start(
    settings: Settings, owner_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from control.app import opened

    async with opened(settings):
        pass
    assert "more than the application needs" not in capsys.readouterr().out
    dsn = settings.postgres.model_copy(update={"dsn": SecretStr(owner_dsn)})
    async with opened(settings.model_copy(update={"postgres": dsn})):
        pass
    assert "more than the application needs" in capsys.readouterr().out
