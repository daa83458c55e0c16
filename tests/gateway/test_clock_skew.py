"""A gateway whose machine has another time than Redis says so: tokens expire by the one, periods end by the other."""

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from gateway.redis.connection import Callback, Connection
from gateway.redis.dialer import Dialer
from quota.keys import SHARDS_DEFAULT


class Owner:
    """Of a connection that ends soon."""

    def on_owing(self, connection: Connection, *, owing: bool) -> None: ...
    def on_error(self, connection: Connection, error: str, callback: Callback) -> None: ...
    def on_lost(self, connection: Connection, reason: str) -> None: ...


@pytest.mark.parametrize(("off", "told"), [(0, []), (3600, [3600]), (-3600, [-3600])])
async def test_a_gateway_whose_clock_is_off_from_that_of_redis_says_so_when_it_connects(
    valkey: str, off: int, told: list[int]
) -> None:
    dialer = Dialer(asyncio.get_running_loop(), valkey, SHARDS_DEFAULT, clock=lambda: time.time() + off)
    with capture_logs() as logs:
        connection = await dialer.dial(Owner())
    connection.abort("the test is over")
    assert [round(each["seconds_ahead_of_redis"] / 10) * 10 for each in logs if "clock" in each["event"]] == told
