"""`quotagate up --topology sentinel`: three servers, three Sentinels, and both planes behind them."""

import redis

from devstack.sentinels import NAME
from tests.e2e.running import Command, Eventually, StartUp


def test_a_stack_behind_sentinels_is_found_good_and_goes_on_after_a_failover(
    up: StartUp, quotagate: Command, eventually: Eventually
) -> None:
    stack = up("sentinels", "--topology", "sentinel")
    assert stack.ready["topology"] == "sentinel"
    assert len(stack.ready["redis_servers"]) == len(stack.ready["sentinels"]) == 3
    found = quotagate("doctor", "--data-dir", str(stack.data_dir)).stdout
    for line in ("good   sentinels agree", "good   redis replicas", "good   redis min-replicas"):
        assert line in found
    with stack.client("bulk") as client, redis.Redis(port=_port(stack.ready["sentinels"][0])) as sentinel:
        assert client.get("/anything").status_code == 200
        before = sentinel.sentinel_get_master_addr_by_name(NAME)
        sentinel.execute_command("SENTINEL", "FAILOVER", NAME)
        assert eventually(lambda: sentinel.sentinel_get_master_addr_by_name(NAME) != before)
        assert eventually(lambda: client.get("/anything").status_code == 200)
    assert stack.stop() == 0


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
