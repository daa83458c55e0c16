"""The journal is found by each of its filters, in pages, without a look at what is not asked for, and says of each
entry whether it is what was sealed."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient

from control import journal
from control.db import ReadTooLong
from control.http.context import Context
from control.journal import Author, Wanted
from devstack import postgres
from tests.control.chain import change, superuser
from tests.control.plane import Entitled, MovedClock, TokenOf

ENTRIES = 60_000
READ_MAX = 15_000
"""Entries that are read for a page of a hundred, to tell which words are rare included."""


@pytest.fixture(autouse=True)
def nothing_of_the_test_before(context: Context, postgres_dsn: str) -> None:
    superuser(postgres_dsn, "TRUNCATE audit_journal, audit_seal, audit_unsealed")


async def wrote(context: Context, actor: str, action: str, org: str | None, after: dict[str, Any]) -> None:
    async with context.db.transaction() as connection:
        await journal.record(
            connection, Author(actor, f"trace-{actor}"), context.clock(), [change(action, org, None, after)]
        )


async def listed(admin: AsyncClient, **query: Any) -> list[Any]:
    answer = await admin.get("/v1/journal", params=query)
    assert answer.status_code == 200, answer.text
    return [entry["after"]["n"] for entry in answer.json()["entries"]]


async def test_an_entry_is_found_by_actor_action_organization_time_and_words(
    context: Context, admin: AsyncClient, clock: MovedClock, entitled: Entitled
) -> None:
    org = await entitled()
    began = clock()
    clock.move(minutes=10)
    await wrote(context, "person:ada@example.com", "grant.created", org, {"n": 1, "reason": "outage in Frankfurt"})
    clock.move(minutes=10)
    await wrote(context, "person:bob@example.com", "grant.created", None, {"n": 2, "reason": "Outage of 12 minutes"})
    clock.move(minutes=10)
    await wrote(context, "service:ci", "plan.changed", org, {"n": 3, "nested": {"list": ["it's a \\ 'quote'"]}})
    since = datetime.fromtimestamp(began, UTC) + timedelta(minutes=15)
    until = since + timedelta(minutes=10)
    assert await listed(admin, actor="person:ada@example.com") == [1]
    assert await listed(admin, action="grant.created") == [2, 1]
    assert await listed(admin, org=org, action="plan.changed") == [3]
    assert await listed(admin, q="outage") == [2, 1]
    assert await listed(admin, q="outage frankfurt") == [1]
    assert await listed(admin, q="12") == [2]
    assert await listed(admin, q="bob@example.com") == [2]
    assert await listed(admin, q="trace-service") == [3]
    assert await listed(admin, q="it's \\ quote") == [3]
    assert await listed(admin, q="nowhere") == []
    assert await listed(admin, since=since.isoformat(), until=until.isoformat()) == [2]
    assert await listed(admin, since=since.isoformat(), q="quote", org=org, actor="service:ci") == [3]


@pytest.mark.parametrize("words", ["'", "\\", "a & b", "!a", "a | (b", "a:*", ":*", "<->", "% _", "a'b\\'c", "  "])
async def test_no_text_is_an_operator_of_the_search(admin: AsyncClient, words: str) -> None:
    assert (await admin.get("/v1/journal", params={"q": words})).status_code == 200


async def test_pages_follow_the_time_that_entries_tell_and_each_entry_is_on_one(
    context: Context, admin: AsyncClient, clock: MovedClock
) -> None:
    for n in (4, 2, 0, 3, 1, 5):
        clock.move(hours=n)
        await wrote(context, "a", "tests.done", None, {"n": n})
        clock.move(hours=-n)
    seen, before = [], None
    while True:
        page = (await admin.get("/v1/journal", params={"limit": 2} | ({"before": before} if before else {}))).json()
        seen += [entry["after"]["n"] for entry in page["entries"]]
        before = page["next"]
        if before is None:
            break
    assert seen == [5, 4, 3, 2, 1, 0]
    unknown = await admin.get("/v1/journal", params={"before": str(uuid4())})
    assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (422, "query.before")


async def test_an_entry_says_whether_it_is_what_was_sealed(
    context: Context, admin: AsyncClient, postgres_dsn: str
) -> None:
    for n in range(4):
        await wrote(context, "a", "tests.done", None, {"n": n})
    entries = (await admin.get("/v1/journal")).json()["entries"]
    assert [(entry["seq"], entry["verified"]) for entry in entries] == [(None, None)] * 4
    await context.sealer.seal()
    entries = (await admin.get("/v1/journal")).json()["entries"]
    assert [(entry["seq"], entry["verified"]) for entry in entries] == [(4, True), (3, True), (2, True), (1, True)]
    chain = (await admin.get("/v1/journal/chain")).json()
    assert (chain["head_seq"], chain["waiting"], chain["verified_from"], chain["verified_to"]) == (4, 0, 1, 4)
    assert chain["broken"] is None

    changed = entries[1]["id"]
    superuser(postgres_dsn, f"UPDATE audit_journal SET actor = 'nobody' WHERE id = '{changed}'")
    entries = (await admin.get("/v1/journal")).json()["entries"]
    assert [entry["verified"] for entry in entries] == [True, False, True, True]
    assert (await admin.get(f"/v1/journal/{changed}")).json()["verified"] is False
    chain = (await admin.get("/v1/journal/chain")).json()
    assert (chain["verified_to"], chain["broken"]["seq"], chain["broken"]["entry"]) == (2, 3, changed)
    good = await admin.get("/v1/journal/chain", params={"after": 3})
    assert good.status_code == 200, good.text
    assert good.json()["broken"] is None
    assert (await admin.get("/v1/journal/chain", params={"after": 9})).status_code == 422
    assert (await admin.get(f"/v1/journal/{uuid4()}")).status_code == 404


async def test_the_journal_is_for_who_may_audit(nobody: AsyncClient, token_of: TokenOf) -> None:
    org = {"authorization": f"Bearer {token_of('acme')}"}
    for path in ("/v1/journal", "/v1/journal/chain", f"/v1/journal/{uuid4()}"):
        assert (await nobody.get(path)).status_code == 401
        assert (await nobody.get(path, headers=org)).status_code == 403


async def test_an_entry_that_is_too_long_to_be_searched_is_written_all_the_same(
    context: Context, admin: AsyncClient
) -> None:
    words = " ".join(uuid4().hex for _ in range(60_000))
    await wrote(context, "person:ada", "tests.done", None, {"n": 1, "words": words})
    assert await listed(admin, q="person:ada") == [1]


FILTERS = [
    Wanted(),
    Wanted(org="org-7"),
    Wanted(action="rare.done"),
    Wanted(actor="person:rare"),
    Wanted(text="needle17000"),
    Wanted(text="common needle17000"),
    Wanted(text="common"),
    Wanted(text="common half1"),
    Wanted(text="nowhere"),
    Wanted(text="half1", org="org-7"),
    Wanted(text="trace-17007", org="org-7"),
    Wanted(org="org-7", action="rare.done"),
    Wanted(since=datetime(2026, 1, 5, tzinfo=UTC), until=datetime(2026, 1, 6, tzinfo=UTC)),
    Wanted(action="common.done", until=datetime(2026, 1, 2, tzinfo=UTC)),
    Wanted(org="org-7", since=datetime(2026, 1, 3, tzinfo=UTC), until=datetime(2026, 1, 4, tzinfo=UTC)),
]


async def test_no_filter_reads_more_than_a_page_needs_however_long_the_journal_is(
    context: Context, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "COUNTED_ROUGHLY", 2000)  # as a part of so few entries
    superuser(
        postgres_dsn,
        f"""
        INSERT INTO audit_journal (id, at, actor, action, org, before, after, correlation_id)
        SELECT gen_random_uuid(), timestamptz '2026-01-01Z' + n * interval '1 minute',
            CASE WHEN n % 10000 = 7 THEN 'person:rare' ELSE 'person:' || n % 50 END,
            CASE WHEN n % 10000 = 7 THEN 'rare.done' ELSE 'common.done' END, 'org-' || n % 500, NULL,
            jsonb_build_object('n', n, 'text', 'common needle' || n, 'half', 'half' || n % 2), 'trace-' || n
        FROM generate_series(1, {ENTRIES}) n;
        INSERT INTO audit_seal (seq, entry_id, sealed_at, hash)
        SELECT row_number() OVER (ORDER BY at), id, at, sha256('x') FROM audit_journal;
        """,
    )
    postgres.execute(postgres_dsn, "VACUUM ANALYZE audit_journal; ANALYZE audit_seal")
    for wanted in FILTERS:
        async with context.db.planned_anew() as connection:
            # PostgreSQL counts the entries that each way has read, in this transaction too.
            read = "SELECT sum(n_tup) FROM (SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) AS n_tup"
            read += " FROM pg_stat_xact_user_tables WHERE relname = 'audit_journal') AS n"
            page = await journal.search(connection, wanted, None, 100)
            entries = await connection.fetchval(read)
        assert entries <= READ_MAX, (wanted, entries)
        assert len(page.rows) == expected(wanted), wanted
    # With millions of entries the planner reads them in order for a word that is in none, so the way is chosen here.
    for text, in_order in (("needle17000", "off"), ("nowhere", "off"), ("common", "on"), ("common half1", "on")):
        async with context.db.planned_anew() as connection:
            await journal.search(connection, Wanted(text=text), None, 100)
            assert await connection.fetchval("SHOW enable_indexscan") == in_order, text


def expected(wanted: Wanted) -> int:
    """The entries of the first page."""
    found = [
        n
        for n in range(1, ENTRIES + 1)
        if (wanted.org is None or n % 500 == 7)
        and (wanted.action != "rare.done" or n % 10000 == 7)
        and (wanted.actor is None or n % 10000 == 7)
        and (wanted.text is None or all(has(word, n) for word in wanted.text.split()))
        and (wanted.since is None or n >= minutes(wanted.since))
        and (wanted.until is None or n < minutes(wanted.until))
    ]
    return min(len(found), 100)


def has(word: str, n: int) -> bool:
    return word in ("common", f"needle{n}", f"trace-{n}", f"half{n % 2}")


def minutes(at: datetime) -> int:
    return int((at - datetime(2026, 1, 1, tzinfo=UTC)).total_seconds() // 60)


async def test_a_search_that_would_take_too_long_is_refused_with_what_would_help(
    admin: AsyncClient, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ReadTooLong):
        async with context.db.planned_anew(seconds=0.05) as connection:
            await connection.execute("SELECT pg_sleep(30)")
    monkeypatch.setattr("control.db.Database.planned_anew", too_long)
    refused = await admin.get("/v1/journal", params={"q": "a"})
    assert (refused.status_code, "limit it" in refused.json()["detail"]) == (422, True)


def too_long(*_: object) -> None:
    raise ReadTooLong
