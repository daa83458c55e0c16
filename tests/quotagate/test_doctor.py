"""The doctor says what is wrong, and nothing when nothing is."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from quotagate.doctor import judge_redis, judge_times
from quotagate.main import app

HEALTHY = {"valkey_version": "9.1.2", "aof_enabled": 1, "maxmemory_policy": "noeviction", "maxmemory": 0}


def wrong(info: dict[str, Any]) -> list[str]:
    return [finding.what for finding in judge_redis(info) if not finding.good]


def test_a_healthy_redis_has_nothing_wrong() -> None:
    assert wrong(HEALTHY) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"valkey_version": None, "redis_version": "6.2.14"}, "redis version"),
        ({"aof_enabled": 0}, "redis persistence"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 1 << 30}, "redis eviction"),
    ],
)
def test_a_redis_that_could_lose_charges_is_wrong(change: dict[str, Any], what: str) -> None:
    assert wrong({**HEALTHY, **change}) == [what]


def test_a_slow_redis_and_a_clock_that_is_off_are_wrong() -> None:
    assert all(finding.good for finding in judge_times(0.2, -0.1))
    assert not any(finding.good for finding in judge_times(20, 90))


def test_what_does_not_answer_is_wrong_and_told_in_one_line(tmp_path: Path) -> None:
    arguments = ["doctor", "--gateway", "http://127.0.0.1:1", "--redis", "redis://127.0.0.1:1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [["WRONG", "gateway"], ["WRONG", "redis"]]
    assert "2 of 2 findings are wrong" in result.stderr


def test_a_redis_of_the_embedded_stack_is_looked_at(redis_url: str) -> None:
    result = CliRunner().invoke(app, ["doctor", "--redis", redis_url])
    told = {line[7:25].strip(): line.startswith("good") for line in result.stdout.splitlines()}
    assert told.pop("redis persistence") is False  # the one for tests keeps nothing
    assert set(told) == {"redis version", "redis eviction", "redis round trip", "redis clock"}
    assert all(told.values())
