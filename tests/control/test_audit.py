"""The journal's hash chain: whatever is done to the journal is found, and the first broken entry is named."""

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from httpx import AsyncClient
from typer.testing import CliRunner

from control import journal
from control.audit.sealer import Sealer
from control.audit.verify import Head
from control.http.context import Context
from control.settings.control_plane import Settings
from quotagate.main import app
from tests.control.chain import AUTHOR, broken, change, fetched, superuser, verified, written
from tests.control.plane import Entitled, TokenOf

DOCUMENT = Path(__file__).parents[2] / "docs" / "audit.md"
[SQL_OF_STRANGERS] = re.findall(r"```sql\n(WITH .*?)```", DOCUMENT.read_text(), re.DOTALL)


@pytest.fixture(autouse=True)
async def entries(context: Context, postgres_dsn: str) -> list[str]:
    """Six entries, sealed, in the order of their seals."""
    superuser(postgres_dsn, "TRUNCATE audit_journal, audit_seal, audit_unsealed")
    await written(context, 6)
    assert await context.sealer.seal() == 6
    return [str(row["entry_id"]) for row in await fetched(context, "SELECT entry_id FROM audit_seal ORDER BY seq")]


async def strangers(context: Context) -> list[int]:
    """What the SQL in docs/audit.md finds: an implementation of its own."""
    return [row["seq"] for row in await fetched(context, SQL_OF_STRANGERS)]


async def test_an_untouched_journal_is_whole_by_both_implementations(context: Context) -> None:
    verdict = await verified(context)
    assert (verdict.broken, verdict.verified, verdict.waiting, verdict.head.seq) == (None, 6, 0, 6)
    assert await strangers(context) == []
    assert (await verified(context, 5)).verified == 2
    assert (await verified(context, 7)).broken is None, "only what is not sealed is looked at"
    with pytest.raises(ValueError, match="no seal 7"):
        await verified(context, 8)


@pytest.mark.parametrize(
    "change",
    [
        "actor = 'somebody else'",
        "at = at + interval '1 microsecond'",
        "org = coalesce(org, '') || 'x'",
        "org = CASE WHEN org IS NULL THEN '' END",
        "after = '{\"n\": 2.0}'",
        "before = 'null'",
        "action = 'tests.don', org = 'e' || org",
        "correlation_id = ''",
    ],
)
async def test_a_changed_entry_is_named(context: Context, entries: list[str], postgres_dsn: str, change: str) -> None:
    superuser(postgres_dsn, f"UPDATE audit_journal SET {change} WHERE id = '{entries[2]}'")
    broken_entry = await broken(context)
    assert (broken_entry.seq, broken_entry.entry, broken_entry.reason.partition(":")[0]) == (3, entries[2], "changed")
    assert await strangers(context) == [3]
    assert (await verified(context, 4)).broken is None, "those after it are as they were sealed"


@pytest.mark.parametrize("change", ["hash = sha256('x')", "sealed_at = sealed_at + interval '1 microsecond'"])
async def test_a_changed_seal_is_named(context: Context, entries: list[str], postgres_dsn: str, change: str) -> None:
    superuser(postgres_dsn, f"UPDATE audit_seal SET {change} WHERE seq = 4")
    broken_entry = await broken(context)
    assert (broken_entry.seq, broken_entry.entry) == (4, entries[3])
    assert (await strangers(context))[0] == 4


async def test_a_deleted_entry_is_named(context: Context, entries: list[str], postgres_dsn: str) -> None:
    superuser(postgres_dsn, f"DELETE FROM audit_journal WHERE id = '{entries[4]}'")
    broken_entry = await broken(context)
    assert (broken_entry.seq, broken_entry.entry, broken_entry.reason.partition(":")[0]) == (5, entries[4], "missing")
    assert await strangers(context) == [5]


async def test_an_entry_deleted_together_with_its_seal_is_found(
    context: Context, entries: list[str], postgres_dsn: str
) -> None:
    superuser(
        postgres_dsn,
        f"DELETE FROM audit_journal WHERE id = '{entries[1]}'; DELETE FROM audit_seal WHERE seq = 2",
    )
    assert str(await broken(context)) == "seq 2: missing: there is no seal 2, and there is a seal 3"
    superuser(postgres_dsn, "UPDATE audit_seal SET seq = seq - 1 WHERE seq > 2")
    broken_entry = await broken(context)
    assert (broken_entry.seq, broken_entry.entry) == (2, entries[2]), "closing the gap does not help"
    assert (await strangers(context))[0] == 2


async def test_an_entry_deleted_before_it_was_sealed_is_found(context: Context, postgres_dsn: str) -> None:
    await written(context, 1)
    superuser(postgres_dsn, "DELETE FROM audit_journal j USING audit_unsealed u WHERE j.id = u.entry_id")
    broken_entry = await broken(context)
    assert (broken_entry.seq, broken_entry.reason) == (
        None,
        "missing: it was written, and is gone before it was sealed",
    )


async def test_an_entry_inserted_between_is_found_before_and_after_it_is_sealed(
    context: Context, entries: list[str], postgres_dsn: str
) -> None:
    between = str(UUID(int=UUID(entries[2]).int + 1))
    insert = (
        f"INSERT INTO audit_journal VALUES ('{between}', now() - interval '1 day', 'a', 'b', NULL, NULL, NULL, 'c')"
    )
    superuser(postgres_dsn, insert)
    assert str(await broken(context)) == (
        f"no seal, entry {between}: inserted around the seals, or its seal was taken away"
    )
    superuser(postgres_dsn, f"INSERT INTO audit_unsealed VALUES ('{between}')")
    await context.sealer.seal()
    broken_entry = await broken(context)
    assert (broken_entry.seq, broken_entry.entry) == (7, between)
    assert broken_entry.reason.startswith("inserted afterwards: ")
    assert await broken(context, 7) == broken_entry, "also when only the end is looked at"


async def test_entries_that_waited_for_days_are_sealed_and_none_is_taken_for_inserted(
    context: Context, postgres_dsn: str
) -> None:
    superuser(postgres_dsn, "TRUNCATE audit_journal, audit_seal, audit_unsealed")
    for days in (9, 7, 3, 0):
        async with context.db.transaction() as connection:
            then = context.clock() - days * 86_400
            await journal.record(connection, AUTHOR, then, [change("tests.done", None, None, None)])
    assert await context.sealer.seal() == 4
    verdict = await verified(context)
    assert (verdict.broken, verdict.verified) == (None, 4)


async def test_an_entry_of_a_clock_that_was_ahead_makes_no_other_look_inserted(context: Context) -> None:
    async with context.db.transaction() as connection:
        ahead = context.clock() + 86_400
        await journal.record(connection, AUTHOR, ahead, [change("tests.ahead", None, None, None)])
    await context.sealer.seal()
    await written(context, 2)
    await context.sealer.seal()
    assert (await verified(context)).broken is None


async def test_an_entry_put_into_the_chain_between_two_others_is_found(
    context: Context, entries: list[str], postgres_dsn: str
) -> None:
    between = str(UUID(int=UUID(entries[2]).int + 1))
    superuser(
        postgres_dsn,
        f"""
        INSERT INTO audit_journal SELECT '{between}', at, 'a', 'b', NULL, NULL, NULL, 'c'
            FROM audit_journal WHERE id = '{entries[2]}';
        UPDATE audit_seal SET seq = seq + 100 WHERE seq > 3;
        INSERT INTO audit_seal SELECT 4, j.id, s.sealed_at, audit_hash(s.hash, 4, s.sealed_at, j)
            FROM audit_journal j, audit_seal s WHERE j.id = '{between}' AND s.seq = 3;
        UPDATE audit_seal SET seq = seq - 99 WHERE seq > 100;
        """,
    )
    broken_entry = await broken(context)
    assert (broken_entry.seq, broken_entry.entry) == (5, entries[3]), "its own hash is good, that of the next is not"
    assert (await strangers(context))[0] == 5


async def test_a_cut_off_end_is_found_by_a_head_that_was_noted(
    context: Context, entries: list[str], postgres_dsn: str
) -> None:
    noted = (await verified(context)).head
    superuser(
        postgres_dsn,
        f"DELETE FROM audit_journal WHERE id = '{entries[5]}'; DELETE FROM audit_seal WHERE seq = 6",
    )
    assert (await verified(context)).broken is None, "the tables alone cannot tell"
    assert str(await broken(context, 1, noted)) == ("seq 6: truncated: the chain ends at 5, and was known to reach 6")
    assert (await broken(context, 7, noted)).reason.startswith("truncated")
    await written(context, 3)
    await context.sealer.seal()
    assert (await broken(context, 1, noted)).reason.startswith("written anew")
    assert (await verified(context)).broken is None


async def test_seals_taken_from_the_end_are_found_with_the_entries_still_there(
    context: Context, entries: list[str], postgres_dsn: str
) -> None:
    superuser(postgres_dsn, "DELETE FROM audit_seal WHERE seq = 6")
    broken_entry = await broken(context)
    assert (broken_entry.seq, broken_entry.entry) == (None, entries[5])


async def test_a_chain_written_anew_as_a_whole_is_found_by_a_head_that_was_noted(
    context: Context, postgres_dsn: str
) -> None:
    early = Head(3, (await fetched(context, "SELECT hash FROM audit_seal WHERE seq = 3"))[0]["hash"])
    superuser(
        postgres_dsn,
        """
        UPDATE audit_journal SET actor = 'nobody';
        DELETE FROM audit_seal;
        INSERT INTO audit_unsealed SELECT id FROM audit_journal;
        """,
    )
    await context.sealer.seal()
    assert (await verified(context)).broken is None
    assert (await broken(context, 1, early)).reason.startswith("written anew")


async def test_an_entry_that_waits_too_long_for_its_seal_is_named(context: Context) -> None:
    await written(context, 1)
    assert (await verified(context)).broken is None
    assert (await verified(context)).waiting == 1
    assert "unsealed for" in (await broken(context, unsealed_seconds=-1.0)).reason


async def test_entries_that_commit_out_of_order_are_all_sealed(context: Context) -> None:
    """One that began first and commits last must not be passed over."""
    async with context.db.transaction() as slow:
        await journal.record(slow, AUTHOR, context.clock(), [change("tests.slow", None, None, None)])
        await written(context, 3)
        assert await context.sealer.seal() == 3
    assert await context.sealer.seal() == 1
    verdict = await verified(context)
    assert (verdict.broken, verdict.verified, verdict.waiting) == (None, 10, 0)
    last = await fetched(
        context,
        "SELECT j.action FROM audit_seal s JOIN audit_journal j ON j.id = s.entry_id ORDER BY s.seq DESC LIMIT 1",
    )
    assert last[0]["action"] == "tests.slow"


class UndoneError(Exception):
    """Rolls a transaction back."""


async def test_an_entry_of_a_transaction_that_was_rolled_back_leaves_nothing(context: Context) -> None:
    with suppress(UndoneError):
        async with context.db.transaction() as connection:
            await journal.record(connection, AUTHOR, context.clock(), [change("tests.undone", None, None, None)])
            raise UndoneError
    assert await context.sealer.seal() == 0
    assert (await verified(context)).broken is None


async def test_many_writers_and_several_sealers_at_once_make_one_chain(context: Context) -> None:
    writing = asyncio.gather(*(written(context, 10) for _ in range(6)))
    sealers = [Sealer(context.db) for _ in range(3)]
    while not writing.done():
        await asyncio.gather(*(sealer.seal() for sealer in sealers))
    await writing
    await context.sealer.seal()
    verdict = await verified(context)
    assert (verdict.broken, verdict.verified, verdict.waiting) == (None, 66, 0)
    assert await strangers(context) == []


async def test_a_writer_of_the_journal_does_not_wait_for_a_seal_under_way(context: Context) -> None:
    async with context.db.transaction() as sealing:
        await written(context, 1)
        assert await sealing.fetchval("SELECT seal_audit_journal(10)") == 1
        async with asyncio.timeout(60):
            await written(context, 2)
            assert await context.sealer.seal() == 0, "somebody else seals"
    assert await context.sealer.seal() == 2


async def test_health_and_metrics_tell_what_is_not_sealed_and_the_head(context: Context, nobody: AsyncClient) -> None:
    await written(context, 2)
    assert (await nobody.get("/-/ready")).json()["journal_unsealed"] == 2
    metrics = (await nobody.get("/-/metrics")).text
    assert "quotagate_control_journal_unsealed_entries 2.0\n" in metrics
    assert "quotagate_control_journal_head_seq 6.0\n" in metrics
    await context.sealer.seal()
    assert (await nobody.get("/-/ready")).json()["journal_unsealed"] == 0


async def test_the_service_seals_by_itself(context: Context) -> None:
    await written(context, 2)
    running = asyncio.create_task(context.sealer.run())
    try:
        async with asyncio.timeout(60):
            while (await context.sealer.waiting())[0]:  # noqa: ASYNC110  # what is waited for happens in Postgres
                await asyncio.sleep(0.02)
    finally:
        running.cancel()


def test_the_command_prints_the_head_names_what_is_broken_and_ends_accordingly(
    postgres_dsn: str, entries: list[str]
) -> None:
    run = CliRunner()
    command = ["audit", "verify", "--dsn", postgres_dsn]
    good = run.invoke(app, command)
    assert good.exit_code == 0, good.output
    head = good.stdout.removeprefix("head ").strip()
    assert re.fullmatch("6:[0-9a-f]{64}", head)
    assert run.invoke(app, [*command, "--from", "7", "--expect", head]).exit_code == 0
    assert run.invoke(app, [*command, "--from", "9"]).exit_code == 2
    assert run.invoke(app, [*command, "--expect", "6:beef"]).exit_code == 2
    assert run.invoke(app, ["audit", "verify", "--dsn", postgres_dsn + "_gone"]).exit_code == 2
    superuser(postgres_dsn, f"UPDATE audit_journal SET actor = 'x' WHERE id = '{entries[0]}'")
    bad = run.invoke(app, [*command, "--expect", head])
    assert bad.exit_code == 1
    assert bad.stdout.splitlines()[-1].startswith(f"BROKEN  seq 1, entry {entries[0]}: changed")


def test_what_cannot_be_checked_is_told_in_one_line(postgres_dsn: str) -> None:
    run = CliRunner()
    place = postgres_dsn.partition("@")[2]
    superuser(postgres_dsn, "DROP ROLE IF EXISTS stranger; CREATE ROLE stranger LOGIN")
    result = run.invoke(app, ["audit", "verify", "--dsn", f"postgresql://stranger@{place}"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "permission denied" in result.stderr
    superuser(postgres_dsn, "DROP ROLE stranger; ALTER TABLE audit_seal RENAME TO of_another_release")
    try:
        result = run.invoke(app, ["audit", "verify", "--dsn", postgres_dsn])
        assert (result.exit_code, result.stdout) == (2, "")
        assert "run `quotagate migrate`" in result.stderr
    finally:
        superuser(postgres_dsn, "ALTER TABLE of_another_release RENAME TO audit_seal")


async def test_an_admin_reads_the_journal_of_all_by_pages_and_filters(
    context: Context, admin: AsyncClient, entries: list[str], entitled: Entitled
) -> None:
    org = await entitled()
    await context.sealer.seal()
    everything: list[dict[str, Any]] = []
    position: dict[str, Any] = {}
    while True:
        page = (await admin.get("/v1/journal", params={"limit": 4, **position})).json()
        everything += page["entries"]
        if page["next"] is None:
            break
        position = {"before": page["next"]}
    assert [entry["id"] for entry in everything[-6:]] == entries[::-1]
    assert [entry["seq"] for entry in everything] == list(range(len(everything), 0, -1))
    assert {len(entry["hash"]) for entry in everything} == {64}

    async def actions(**filters: str) -> list[str]:
        response = await admin.get("/v1/journal", params=filters)
        assert response.status_code == 200, response.text
        return [entry["action"] for entry in response.json()["entries"]]

    assert await actions(org=org) == ["entitlement.set", "organization.created"]
    assert await actions(org=org, action="entitlement.set") == ["entitlement.set"]
    assert await actions(since="2090-01-01T00:00:00Z") == []
    assert await actions(until="2020-01-01T00:00:00Z") == []
    assert len(await actions(since="2020-01-01T00:00:00Z", action="tests.done")) == 6
    for wrong in ({"since": "0001-01-01T00:00:00+14:00"}, {"org": "a b"}, {"before": "x"}, {"limit": "0"}):
        assert (await admin.get("/v1/journal", params=wrong)).status_code == 422


async def test_the_journal_of_all_is_for_admins(nobody: AsyncClient, token_of: TokenOf, settings: Settings) -> None:
    assert (await nobody.get("/v1/journal")).status_code == 401
    own = {"authorization": f"Bearer {token_of('org0')}"}
    assert (await nobody.get("/v1/journal", headers=own)).status_code == 403
