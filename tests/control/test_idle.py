"""What a control plane asks of its stores while nobody asks anything of it."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import redis

from control.settings import Settings
from tests.control.test_process import started

WAITS = 6
COMMANDS_OF_A_WAIT_MAX = 25
"""A wait for events takes half a second, so that these are 50 a second; as a ratio it is so on a slow machine, too."""


def called(server: "redis.Redis") -> Counter[str]:
    told: Any = server.info("commandstats")
    return Counter({name: figures["calls"] for name, figures in told.items()})


def test_an_idle_control_plane_asks_redis_less_than_50_times_a_second(settings: Settings, tmp_path: Path) -> None:
    with (
        started(settings, tmp_path / "control.log"),
        redis.Redis.from_url(settings.redis.url.get_secret_value()) as server,
    ):
        waits, looks, deadline = 0, 0, time.monotonic() + 240
        before = called(server)
        while waits < WAITS:
            assert time.monotonic() < deadline
            time.sleep(0.1)
            asked, looks = called(server) - before, looks + 1
            waits = asked["cmdstat_xread"]
    assert sum(asked.values()) - looks <= COMMANDS_OF_A_WAIT_MAX * waits, asked.most_common()
