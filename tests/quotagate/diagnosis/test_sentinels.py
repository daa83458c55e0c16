"""What the doctor finds about Sentinels and the servers that they watch."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from quotagate.diagnosis.finding import Finding, Level
from quotagate.diagnosis.sentinels import Server, Watcher, judge_bound, judge_servers, judge_watchers
from quotagate.diagnosis.stores import Skews, of_redis
from tests.faults.test_sentinel import watched

ABOUT = {"ip": "10.0.0.1", "port": "6379", "num-other-sentinels": "2", "quorum": "2"}
REPLICA = {
    "role": "slave",
    "master_link_status": "up",
    "maxmemory_policy": "noeviction",
    "maxmemory": 0,
    "aof_enabled": 1,
}


def watcher(address: str, **about: str) -> Watcher:
    return Watcher(address, ABOUT | {name.replace("_", "-"): value for name, value in about.items()}, ())


def found(findings: Iterator[Finding]) -> Mapping[str, tuple[Level, str]]:
    return {each.what: (each.level, each.detail) for each in findings}


def test_three_sentinels_that_agree_are_good() -> None:
    assert {level for level, _ in found(judge_watchers([watcher(each) for each in "abc"])).values()} == {Level.GOOD}


def test_a_sentinel_that_is_away_and_sentinels_that_disagree_are_told_by_name() -> None:
    away = Watcher("c", {}, (), "Connection refused")
    told = found(judge_watchers([watcher("a"), watcher("b", ip="10.0.0.2"), away]))
    assert told["sentinels"] == (Level.WRONG, "2 of 3 answer (c: Connection refused)")
    assert told["sentinels agree"] == (Level.WRONG, "the primary is 10.0.0.1:6379 or 10.0.0.2:6379")


def test_sentinels_that_the_settings_do_not_name_and_a_quorum_that_cannot_be_are_told() -> None:
    told = found(judge_watchers([watcher(each, num_other_sentinels="4", quorum="4") for each in "abc"]))
    assert told["sentinels known"] == (Level.WRONG, "they know 5 Sentinels, and the settings name 3: name all")
    assert told["sentinels quorum"] == (Level.WRONG, "4 of 3: no failover can begin")


def test_sentinels_with_another_quorum_each_are_told() -> None:
    told = found(judge_watchers([watcher("a", quorum="2"), watcher("b", quorum="3"), watcher("c", quorum="2")]))
    assert told["sentinels quorum"][0] is Level.WRONG
    assert told["sentinels quorum"][1].startswith("2 or 3: they disagree")


def test_a_replica_that_may_lose_what_is_charged_is_told_before_it_is_promoted() -> None:
    evicts = REPLICA | {"maxmemory_policy": "allkeys-lru", "maxmemory": 1000}
    forgets = REPLICA | {"aof_enabled": 0}
    told = found(
        judge_servers([Server("one", evicts, "900 1"), Server("two", forgets, ""), Server("three", None, None)])
    )
    assert told["redis replicas"] == (Level.WRONG, "2 of 3 hear the primary")
    assert "could be promoted, and Redis may remove counters" in told["redis one"][1]
    assert "could be promoted, and Redis keeps nothing on its disk" in told["redis two"][1]


def test_an_ipv6_address_that_a_sentinel_names_is_one_of_a_url() -> None:
    assert watcher("a", ip="2001:db8::1").primary == "[2001:db8::1]:6379"


def test_two_primaries_are_told() -> None:
    told = found(judge_servers([Server("one", REPLICA | {"role": "master"}, "")]))
    assert told["redis one"][0] is Level.WRONG
    assert "there are two" in told["redis one"][1]


@pytest.mark.parametrize(("setting", "level"), [("0", Level.NOTE), ("1", Level.GOOD)])
def test_a_primary_that_would_go_on_without_its_replicas_is_told(setting: str, level: Level) -> None:
    assert found(judge_bound({"min-replicas-to-write": setting}))["redis min-replicas"][0] is level


async def test_the_doctor_looks_at_servers_and_sentinels_that_run(tmp_path: Path) -> None:
    with watched(tmp_path) as servers:
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(servers.watched):  # noqa: ASYNC110 - they ring no bell
                await asyncio.sleep(0.1)
        told = found(iter(await asyncio.to_thread(of_redis, servers.url, Skews())))
    assert told["sentinels"] == (Level.GOOD, "3 of 3 answer")
    assert told["redis replicas"] == (Level.GOOD, "2 of 2 hear the primary")
    assert told["redis min-replicas"][0] is Level.NOTE
    port = servers.url.partition(":")[2].partition(":")[2].partition(",")[0]
    wrong = found(iter(await asyncio.to_thread(of_redis, f"redis+sentinel://127.0.0.1:{port}/other", Skews())))
    assert wrong["redis"][0] is Level.WRONG
