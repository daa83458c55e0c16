"""The tiles are as the ledger is, at the position that they name."""

import ast
import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from httpx import AsyncClient

import control
from control import incidents, sql
from control.attention import tiles
from control.attention.kinds import KINDS, Tile, kind_of
from control.db import Connection
from control.http.context import Context
from control.ids import uuid7
from control.ledger.streams import START
from control.moments import moment
from control.usage.limits import LimitWatch
from devstack import postgres
from tests import charging
from tests.control.plane import Entitled, MovedClock, TokenOf

TABLES = "incident, webhook_event, notification, mirror_look, overage_window, usage_watermark, limit_watch"
STEPS, AT_ONCE = 40, 6


@pytest.fixture(autouse=True)
def nothing_of_the_test_before(postgres_dsn: str) -> None:
    postgres.execute(postgres_dsn, f"TRUNCATE {TABLES} CASCADE")


class Undone(Exception):
    pass


class Workload:
    """Opens, closes, files and gives up, and writes down in the same transaction by how much each figure changed."""

    def __init__(self, context: Context, seed: int) -> None:
        self._context = context
        self._random = random.Random(seed)
        self._open: list[tuple[str, str]] = []
        self._waiting: list[str] = []
        self._dead: list[str] = []

    async def run(self) -> None:
        for _ in range(STEPS):
            try:
                async with self._context.db.transaction() as connection:
                    changes = await self._step(connection)
                    for figure, by in changes.items():
                        await connection.execute(
                            "INSERT INTO tile_truth VALUES (pg_current_xact_id(), $1, $2)", figure, by
                        )
                    await asyncio.sleep(self._random.random() / 100)  # others commit meanwhile
                    if self._random.random() < 0.2:
                        raise Undone
            except Undone:
                self._open, self._waiting, self._dead = [], [], []  # whatever became of them

    async def _step(self, connection: Connection) -> dict[str, int]:
        at, choice = moment(self._context.clock()), self._random.randrange(5)
        if choice == 0 and self._open:
            kind, key = self._open.pop()
            closed = await incidents.close(connection, at.timestamp(), kind, key)
            return {kind: -1} if closed else {}
        if choice == 1 and self._waiting:
            event = self._waiting.pop()
            attempts = await connection.fetchval("SELECT attempts FROM webhook_event WHERE id = $1", event)
            if attempts is None:
                return {}
            await sql.webhooks.give_up(connection, id=event, attempts=attempts, at=at, error="broken")
            self._dead.append(event)
            return {"stripe_waiting": -1, "stripe_dead": 1}
        if choice == 2:
            event = f"evt_{uuid4().hex}"
            await sql.webhooks.receive(
                connection,
                ids=[event],
                types=["a"],
                customers=[None],
                created_ats=[at],
                payloads=[{}],
                at=at,
                traceparent=None,
            )
            self._waiting.append(event)
            return {"stripe_waiting": 1}
        if choice == 3 and self._dead:
            again = await sql.webhooks.requeue(connection, ids=[self._dead.pop()], at=at)
            return {"stripe_waiting": 1, "stripe_dead": -1} if again else {}
        kind, key = self._random.choice(list(KINDS)), uuid4().hex
        await incidents.open(connection, at.timestamp(), kind, key, None, {})
        self._open.append((kind, key))
        return {kind: 1}


@pytest.fixture
def truth(postgres_dsn: str, application_login: str) -> Iterator[str]:
    postgres.execute(postgres_dsn, "CREATE TABLE tile_truth (tx xid8, figure text, change integer)")
    postgres.execute(postgres_dsn, f"GRANT SELECT, INSERT ON tile_truth TO {application_login}")
    yield "tile_truth"
    postgres.execute(postgres_dsn, "DROP TABLE tile_truth")


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_number_is_what_the_transactions_of_its_position_add_up_to(
    context: Context, truth: str, seed: int
) -> None:
    working = [asyncio.create_task(Workload(context, seed * 100 + n).run()) for n in range(AT_ONCE)]
    looks: list[tiles.Tiles] = []
    while not all(task.done() for task in working):
        looks.append(await tiles.read(context.db))
    await asyncio.gather(*working)
    looks.append(await tiles.read(context.db))
    assert len({look.snapshot for look in looks}) > 20
    async with context.db.connection() as connection:
        for look in looks:
            rows = await connection.fetch(
                f"SELECT figure, sum(change) AS number FROM {truth} "
                "WHERE pg_visible_in_snapshot(tx, $1::text::pg_snapshot) GROUP BY figure",
                look.snapshot,
            )
            expected = Counter({row["figure"]: row["number"] for row in rows})
            shown = {figure.name: figure.number for tile in look.tiles.values() for figure in tile.figures}
            counted = {name: number for name, number in expected.items() if number}
            queued = {kind for kind in KINDS if KINDS[kind].tile in (Tile.DEAD_LETTERS, Tile.WEBHOOK_BACKLOG)}
            assert shown == {name: number for name, number in counted.items() if name not in queued}, look.snapshot
            assert look.open == sum(number for name, number in expected.items() if name in KINDS)


async def test_an_organization_whose_last_unit_is_taken_is_on_its_tile_with_the_position_that_includes_it(
    context: Context, clock: MovedClock, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny", meters={"api_calls": 2})
    await charging.take(context.ledger, org, uuid4().hex[:20], {"api_calls": 2})
    last = await context.streams.read(
        dict.fromkeys(range(context.ledger.shards), START), dict.fromkeys(range(context.ledger.shards), 10)
    )
    [(shard, entries)] = [(shard, entries) for shard, entries in last.items() if entries]
    await context.writer.resume()
    while not await context.writer.write():
        pass
    await LimitWatch(context.db, context.ledger, clock).round()
    shown = (await admin.get("/v1/incidents/tiles")).json()
    assert shown["tiles"]["quota_blocks"]["number"] == 1
    assert shown["tiles"]["quota_blocks"]["figures"] == {"quota_exhausted": 1}
    assert shown["position"]["watermarks"][str(shard)] == entries[-1][0].decode()
    grant = {"meter": "api_calls", "units": 5, "expires_at": "2099-01-01T00:00:00Z", "reason": "helping out"}
    await admin.post(f"/v1/organizations/{org}/grants", json=grant)
    clock.move(seconds=5)
    await LimitWatch(context.db, context.ledger, clock).round()
    assert (await admin.get("/v1/incidents/tiles")).json()["tiles"]["quota_blocks"]["number"] == 0


async def test_messages_on_their_way_need_no_attention_until_one_has_waited_for_a_minute(
    context: Context, admin: AsyncClient, clock: MovedClock
) -> None:
    async with context.db.connection() as connection:
        at = moment(clock())
        await sql.notifications.add(connection, ids=[uuid7()], types=["a"], orgs=[None], bodies=["{}"], at=at)
    backlog = (await admin.get("/v1/incidents/tiles")).json()["tiles"]["webhook_backlog"]
    assert (backlog["number"], backlog["needs_attention"]) == (1, False)
    async with context.db.connection() as connection:
        await connection.execute("UPDATE notification SET created_at = created_at - interval '2 minutes'")
    backlog = (await admin.get("/v1/incidents/tiles")).json()["tiles"]["webhook_backlog"]
    assert (backlog["number"], backlog["needs_attention"]) == (1, True)


async def test_beyond_a_bound_nobody_counts_on_and_the_tile_says_so(context: Context, admin: AsyncClient) -> None:
    async with context.db.connection() as connection:
        await connection.execute(
            "INSERT INTO incident (id, kind, key, content, count, opened_at, last_seen_at) "
            "SELECT gen_random_uuid(), 'drift', n::text, '{}', 1, now(), now() FROM generate_series(1, $1::int) n",
            tiles.COUNTED_MAX + 5,
        )
    shown = (await admin.get("/v1/incidents/tiles")).json()
    assert shown["tiles"]["drift"]["number"] == tiles.COUNTED_MAX
    assert shown["tiles"]["drift"]["more"] is True
    assert shown["open_incidents"] == tiles.COUNTED_MAX


async def test_tiles_are_for_admins_only(nobody: AsyncClient, token_of: TokenOf) -> None:
    org = {"authorization": f"Bearer {token_of('acme')}"}
    for path in ("/v1/incidents/tiles", "/v1/incidents/tiles/stream"):
        assert (await nobody.get(path)).status_code == 401
        assert (await nobody.get(path, headers=org)).status_code == 403


def opened_kinds() -> set[str]:
    """The kinds that the source opens: words, and names of constants."""
    root = Path(control.__file__).parent
    constants: dict[str, str] = {}
    used: set[str] = set()
    for file in root.rglob("*.py"):
        tree = ast.parse(file.read_text())
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                constants[f"{file}:{ast.unparse(target)}"] = str(node.value.value)
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if (name := ast.unparse(call.func)) in ("incidents.open", "self._open", "Trouble", "Standing"):
                kind = call.args[2 if name == "incidents.open" else 0]
                used.add(str(kind.value) if isinstance(kind, ast.Constant) else f"{file}:{ast.unparse(kind)}")
    return {constants.get(name, "" if ":" in name else name) for name in used} - {""}


def test_each_kind_that_the_source_opens_says_what_to_do() -> None:
    found = opened_kinds()
    assert len(found) > 20
    recovered = {"usage_recovered", "usage_put_back_late"}  # whose names are made of actions of the journal
    assert (found | recovered) - KINDS.keys() == set()
    for name, kind in KINDS.items():
        assert kind.steps, name
        assert kind.means.endswith("."), name
    assert kind_of("of_an_earlier_release").title == "Of an earlier release"
