"""What a soak finds: a unit that is lost, given away or counted twice, and a process that holds ever more."""

import asyncio
import random
from dataclasses import replace
from itertools import islice

import asyncpg
import pytest

from bench.soak.__main__ import Soak, goals
from bench.soak.audit import Counts, findings, miscounted
from bench.soak.faults import in_turns
from bench.soak.lines import lines
from bench.soak.traffic import Books, Traffic
from bench.soak.watching import MIB, Series, growth, slope, thinned
from devstack.ports import LOOPBACK, free_port

EVEN = Counts({"a": 3}, {"a": 3}, {"a": 3}, duplicated=0)


def books(admitted: int = 3, unknown: int = 0, allowance: int | None = None) -> Books:
    kept = Books()
    if allowance is not None:
        kept.allowance["a"] = allowance
    for _ in range(admitted):
        kept.admit("a", 0.001, "")
    kept.unknown["a"] = unknown
    return kept


def series(hours: float = 1.0, mib_per_hour: float = 0.0, descriptors_per_hour: float = 0.0) -> Series:
    seen = Series()
    for at in range(200):
        part = at / 199 * hours
        seen.seconds.append(part * 3600)
        noise = 0.5 * ((at * 7919) % 13 - 6) / 6
        seen.resident.append(round((80 + mib_per_hour * part + noise) * MIB))
        seen.descriptors.append(20 + int(descriptors_per_hour * part))
    return seen


def test_counts_that_agree_with_what_clients_were_admitted_are_clean() -> None:
    assert findings(books(), EVEN).clean


def test_an_admitted_unit_without_a_row_is_lost() -> None:
    assert findings(books(admitted=4), EVEN).lost == 1


def test_a_row_that_no_call_explains_is_unaccounted_and_one_of_a_cut_call_is_not() -> None:
    assert findings(books(admitted=2), EVEN).unaccounted == 1
    assert findings(books(admitted=2, unknown=1), EVEN).clean


def test_an_organization_is_over_admitted_by_the_clients_books_or_by_the_rows() -> None:
    assert findings(books(allowance=3), EVEN).over == 0
    assert findings(books(allowance=2), EVEN).over == 1
    assert findings(books(admitted=0, unknown=9, allowance=2), EVEN).over == 1


def test_what_was_admitted_beyond_an_allowance_stays_so_when_more_is_given_later() -> None:
    kept = books(admitted=3, allowance=2)
    kept.allowance["a"] = 100
    assert findings(kept, EVEN).over == 1


@pytest.mark.parametrize(
    "counts",
    [replace(EVEN, events={"a": 4}), replace(EVEN, counters={"a": 4}), replace(EVEN, redis={"a": 2})],
)
def test_drift_is_when_one_of_the_three_counts_differs(counts: Counts) -> None:
    assert findings(books(admitted=3, unknown=9), counts).drift == 1


def test_a_slope_is_not_turned_by_a_spike() -> None:
    xs = [float(at) for at in range(20)]
    assert slope(xs, [2 * x for x in xs]) == pytest.approx(2)
    assert slope(xs, [0.0] * 10 + [500.0] + [0.0] * 9) == 0
    assert slope([1.0], [1.0]) == 0


def test_memory_that_grows_is_found_and_noise_is_none() -> None:
    leaking, steady = growth(series(mib_per_hour=5)), growth(series())
    assert leaking is not None
    assert steady is not None
    assert leaking.mib_per_hour == pytest.approx(5, abs=0.5)
    assert abs(steady.mib_per_hour) < 0.5
    assert growth(Series()) is None


def test_a_report_has_some_points_of_a_long_run() -> None:
    assert [len(thinned(series(), most).seconds) for most in (1000, 200, 50, 7)] == [200, 200, 50, 7]
    assert thinned(Series()).seconds == []


def test_descriptors_that_are_not_closed_are_found() -> None:
    leaking = growth(series(descriptors_per_hour=40))
    assert leaking is not None
    assert leaking.descriptors_last - leaking.descriptors_first > 10


@pytest.mark.parametrize(("seconds", "judged"), [(120.0, False), (3600.0, True)])
def test_growth_is_judged_in_a_run_that_is_long_enough(seconds: float, judged: bool) -> None:
    leaking = growth(series(descriptors_per_hour=40))
    assert leaking is not None
    kept = goals(Soak(seconds=seconds), findings(books(), EVEN), {"worker": leaking})
    assert any(goal.about == "worker: more descriptors than at first" for goal in kept) is judged


async def test_clients_keep_books_of_what_was_cut_and_go_to_the_other_gateway_when_one_is_away() -> None:
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", b""]
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                asked += 1
                content = answers[asked % 3]
                if not content:
                    break
                writer.write(content)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    port = int(server.sockets[0].getsockname()[1])
    traffic = Traffic([free_port(), port], [], rate=300)
    traffic.requests["a"] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    traffic.start()
    async with asyncio.timeout(30):
        while traffic.books.statuses.total() < 60:  # noqa: ASYNC110 - the clients count
            await asyncio.sleep(0.01)
    await traffic.stop()
    server.close()
    kept = traffic.books
    assert set(kept.statuses) == {200, 503, "cut"}
    assert kept.admitted["a"] == kept.statuses[200] == len(kept.latencies)
    assert kept.unknown["a"] == kept.failed == kept.statuses[503] + kept.statuses["cut"]
    assert asked == kept.statuses.total()


def test_the_chart_has_a_line_and_a_name_for_each_process() -> None:
    drawn = lines("Memory", "MiB", {"gateway, worker": [(0, 80), (60, 81)], "control": [(0, 100), (60, 100)]})
    assert drawn.count("<polyline") == 2
    assert "gateway, worker" in drawn
    assert "<polyline" not in lines("Memory", "MiB", {})


def test_faults_come_in_a_random_order_each_as_often_as_the_others_and_again_by_their_seed() -> None:
    kinds = "abcdefghijkl"
    order = list(islice(in_turns(kinds, random.Random(7)), 36))
    turns = [order[at : at + 12] for at in (0, 12, 24)]
    assert all(sorted(turn) == list(kinds) for turn in turns)
    assert len({*map(tuple, turns)}) == 3
    assert order == list(islice(in_turns(kinds, random.Random(7)), 36))


ROW = (
    "INSERT INTO usage_event (org, occurred_at, stream_seq, meter, shard, stream_ms, kind, request_id, period_start,"
    " units, overage) VALUES ('a', now(), $1, 'api_calls', 0, $1::integer, $2, $3, now(), $4, 0)"
)


async def test_each_request_whose_rows_are_not_what_it_took_is_told_with_its_rows(postgres_dsn: str) -> None:
    kept = Books(answered={"written": 1.0, "missing": 1.0, "given-back": 1.0, "later": 9.0})
    rows = [("take", "written", 1), ("take", "given-back", 1), ("settle", "given-back", -1)]
    rows += [("take", "refused", 1), ("settle", "refused", -1), ("settle", "only-settled", -1), ("take", "cut", 1)]
    connection = await asyncpg.connect(postgres_dsn)
    try:
        for number, row in enumerate(rows):
            await connection.execute(ROW, number, *row)
        told = await miscounted(connection, kept, 5.0)
    finally:
        await connection.close()
    assert told == {
        "missing": "admitted at 1.000, and has no row",
        "given-back": "a: admitted at 1.000, and has take 1 at 1, settle -1 at 2",
        "only-settled": "a: not admitted, and has settle -1 at 5",
    }
