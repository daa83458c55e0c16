"""What a control plane asks of its stores while nobody asks anything of it."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import redis

from control.settings.control_plane import Settings
from tests.control.running import started

START_WAITS = 4
"""By then what is asked once, at the start, was asked."""
WAITS = 6
COMMANDS_OF_A_WAIT_MAX = 25
"""A wait for events takes half a second, so that these are 50 a second; as a ratio it is so on a slow machine, too."""


def called(server: "redis.Redis") -> Counter[str]:
    commands: Any = server.info("commandstats")
    return Counter({name: figures["calls"] for name, figures in commands.items()})


def test_an_idle_control_plane_asks_redis_less_than_50_times_a_second(settings: Settings, tmp_path: Path) -> None:
    with (
        started(settings, tmp_path / "control.log"),
        redis.Redis.from_url(settings.redis.url.get_secret_value()) as server,
    ):
        before = called(server)
        after_waits(server, before, START_WAITS)
        before = called(server)
        commands, looks = after_waits(server, before, WAITS)
    assert sum(commands.values()) - looks <= COMMANDS_OF_A_WAIT_MAX * commands["cmdstat_xread"], commands.most_common()


def after_waits(server: "redis.Redis", before: Counter[str], waits: int) -> tuple[Counter[str], int]:
    """The commands since `before`, once there were so many waits for events, and how many of them were this look's."""
    looks, deadline = 0, time.monotonic() + 240
    while True:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        commands, looks = called(server) - before, looks + 1
        if commands["cmdstat_xread"] >= waits:
            return commands, looks
