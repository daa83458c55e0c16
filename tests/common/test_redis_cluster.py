"""Which server holds which slots, as a Cluster says it, and what is refused of it by name."""

import pytest

from common import redis_url
from common.redis_cluster.address import taken_apart
from common.redis_cluster.client import key_of
from common.redis_cluster.topology import (
    Address,
    Range,
    Topology,
    View,
    disagreement,
    parse,
    slot_of,
    state_of,
    unserved,
)
from quota import keys
from quota.ledger import UnsupportedServer

ASKED = Address("10.0.0.1", 7000)
ONE, TWO = Address("10.0.0.1", 7000), Address("cache-2.example", 7001)


def test_slots_belong_to_the_primaries_that_the_reply_names_and_a_server_without_a_name_is_the_one_that_was_asked() -> (
    None
):
    reply = [
        [8192, 16383, [b"cache-2.example", 7001, b"id"], [b"10.0.0.9", 7002, b"id"]],
        [0, 8191, [b"", 7000, b"id", [b"hostname", b"x"]], [b"?", 7003, b"id"]],
    ]
    topology = parse(reply, ASKED)
    topology.require_all_slots()
    assert topology.ranges == (Range(0, 8191, ONE), Range(8192, 16383, TWO))
    assert topology.primaries == [ONE, TWO]
    assert topology.replicas == (Address("10.0.0.9", 7002),)
    assert [topology.owner(slot) for slot in (0, 8191, 8192)] == [ONE, ONE, TWO]


def test_servers_that_differ_are_told_by_the_first_slot_that_they_differ_on() -> None:
    halves = View(Topology((Range(0, 8191, ONE), Range(8192, 16383, TWO))), 7, is_ok=True)
    parts = View(Topology((Range(0, 99, ONE), Range(100, 8191, ONE), Range(8192, 16383, TWO))), 6, is_ok=True)
    moved = View(Topology((Range(0, 8190, ONE), Range(8191, 16383, TWO))), 8, is_ok=True)
    alone = View(halves.topology, 7, is_ok=False)
    assert disagreement({}) is None
    assert disagreement({ONE: halves, TWO: parts}) is None, "however they are split up"
    assert disagreement({ONE: alone, TWO: alone}) is None, "both say so"
    assert disagreement({ONE: halves, TWO: moved, ASKED._replace(port=1): halves}) == (
        "the servers of the Redis Cluster disagree whose slot 8191 is: 10.0.0.1:7000, 10.0.0.1:1 name 10.0.0.1:7000; "
        "cache-2.example:7001 names cache-2.example:7001"
    )
    assert disagreement({ONE: halves, TWO: alone}) == (
        "of the servers of the Redis Cluster these alone say that it does not serve: cache-2.example:7001"
    )


def test_slots_that_are_not_served_are_told_by_the_newest_view_with_the_primary_that_is_away() -> None:
    halves = Topology((Range(0, 8191, ONE), Range(8192, 16383, TWO)))
    good, gap = View(halves, 7, is_ok=True), View(Topology((Range(0, 8191, ONE),)), 8, is_ok=True)
    failed = View(halves, 7, is_ok=True, slots_failed=8192)
    assert unserved({}) is None
    assert unserved({ONE: good, TWO: good}) is None
    assert unserved({ONE: good, TWO: gap}) == "the Redis Cluster does not cover all slots: no primary has 8192-16383"
    assert unserved({ONE: failed}) == (
        "8192 slots of the Redis Cluster have a primary that has failed (cache-2.example:7001 does not answer), and no "
        "replica has taken over"
    )
    assert "(the others do not reach it)" in str(unserved({ONE: failed, TWO: failed}))
    down = View(halves, 7, is_ok=False)
    assert str(unserved({ONE: down, TWO: down})).startswith("no server of the Redis Cluster serves")
    assert unserved({ONE: good, TWO: down}) is None, "one alone is cut off: they disagree"
    info = b"cluster_state:fail\r\ncluster_slots_fail:12\r\ncluster_current_epoch:6\r\n"
    assert state_of(info) == (6, False, 12)


@pytest.mark.parametrize(
    ("ranges", "named"),
    [
        ([], "0-16383"),
        ([(0, 100)], "101-16383"),
        ([(1, 5), (7, 16383)], "0, 6"),
        ([(n, n) for n in range(0, 16384, 2)], "1, 3, 5, 7, 9 and 8187 ranges more"),
    ],
)
def test_slots_without_a_primary_are_named(ranges: list[tuple[int, int]], named: str) -> None:
    topology = parse([[first, last, [b"a", 1]] for first, last in ranges], ASKED)
    with pytest.raises(UnsupportedServer, match=f"no primary has {named}$"):
        topology.require_all_slots()


def test_two_primaries_for_one_slot_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedServer, match="two primaries for slot 90: a:1 and b:2"):
        parse([[0, 100, [b"a", 1]], [90, 16383, [b"b", 2]]], ASKED)


def test_all_keys_of_a_shard_and_no_more_need_one_slot() -> None:
    org, shard = "acme", keys.shard_of("acme", 32)
    of_shard = [
        keys.org_key(org, 32),
        keys.access_key(org, 32),
        keys.events_key(shard),
        keys.generation_key(shard),
        keys.written_key(shard),
        keys.settled_key(org, 32, "r"),
        keys.idempotency_key(org, 32, "n"),
    ]
    assert len(set(map(slot_of, of_shard))) == 1
    assert slot_of(keys.VOUCH_IN_CLUSTER) == slot_of(keys.HYDRATE)
    assert slot_of(keys.RECEIPTS_ASKED) == slot_of(keys.RECEIPTS)
    assert slot_of("123456789") == 0x31C3, "of the specification"


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("GET", "k"), "k"),
        (("EVALSHA", "sha", 2, "k", "l", "x"), "k"),
        (("EVAL", "text", 0), None),
        (("XREAD", b"COUNT", 1, b"STREAMS", "s", "0"), "s"),
        (("INFO", "server"), None),
        (("CONFIG GET", "save"), None),
    ],
)
def test_a_command_goes_where_its_first_key_is(words: tuple[object, ...], key: str | None) -> None:
    assert key_of(words) == key


@pytest.mark.parametrize(
    ("url", "seeds", "of_other"),
    [
        ("redis+cluster://a,b:7001", [("a", 6379), ("b", 7001)], "redis://x:1"),
        (
            "rediss+cluster://u:p%40@[::1]:7000/?ssl_cert_reqs=none",
            [("::1", 7000)],
            "rediss://u:p%40@x:1/?ssl_cert_reqs=none",
        ),
        ("redis+cluster://a/0", [("a", 6379)], "redis://x:1/0"),
    ],
)
def test_an_address_names_servers_and_what_all_have_in_common(
    url: str, seeds: list[tuple[str, int]], of_other: str
) -> None:
    apart = taken_apart(url)
    assert (list(apart.seeds), apart.of(Address("x", 1))) == (seeds, of_other)
    redis_url.options(url)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("redis+cluster://", "must be redis"),
        ("redis+cluster://a,", "must be redis"),
        ("redis+cluster://a:x,b", "must be redis"),
        ("redis+cluster://a,a:6379", "named twice"),
        ("redis+cluster://a,b/1", "no databases"),
        ("redis+cluster://a,b?db=1", "no databases"),
        ("redis+cluster://a,b?ssl_certfile=/x", "ssl_certfile can only be used with rediss://"),
        ("redis+cluster://a,b?sockettimeout=1", "option sockettimeout is not supported"),
    ],
)
def test_an_address_of_a_cluster_that_cannot_be_used_says_why(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        redis_url.options(url)
