"""`quotagate up --topology`: several servers, and both planes on them."""

from collections import Counter

import httpx
import redis

from devstack.sentinels import NAME
from devstack.topology import CLUSTER_SERVERS
from devstack.valkey_cluster import ClusterNode
from tests.e2e.running import Command, Eventually, StartUp, Up, client_of


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


def test_a_stack_on_a_cluster_gives_its_limit_and_no_more_over_a_failover_and_another_start(
    up: StartUp, quotagate: Command, eventually: Eventually
) -> None:
    stack = up("cluster", "--topology", "cluster")
    assert stack.ready["topology"] == "cluster"
    assert len(stack.ready["redis_servers"]) == CLUSTER_SERVERS
    assert quotagate("doctor", "--data-dir", str(stack.data_dir)).returncode == 0
    org = stack.organization_with_100_calls()
    token = stack.token(org)
    replica = ClusterNode(stack.data_dir, _port(stack.ready["redis_servers"][CLUSTER_SERVERS // 2]), 0)
    admitted = _admitted(stack, token, 40)
    with replica.redis as redis_client:
        redis_client.execute_command("CLUSTER FAILOVER")
        assert eventually(lambda: redis_client.info("replication")["role"] == "master")
    admitted += _admitted(stack, token, 40)
    assert stack.stop() == 0
    again = up("cluster", "--topology", "cluster")
    admitted += _admitted(again, token, 100)
    assert admitted == 100
    assert again.stop() == 0


def test_a_stack_of_three_regions_gives_a_limit_whole_and_no_more_wherever_it_is_asked(
    up: StartUp, quotagate: Command, eventually: Eventually
) -> None:
    stack = up("regions", "--topology", "regions")
    assert stack.ready["topology"] == "regions"
    regions = stack.ready["regions"]
    assert list(regions) == ["us", "eu", "ap"]
    assert len({place[name] for place in regions.values() for name in ("gateway", "control", "redis")}) == 9
    assert quotagate("doctor", "--data-dir", str(stack.data_dir)).returncode == 0
    token = stack.token(stack.organization_with_100_calls())
    gateways = [place["gateway"] for place in regions.values()]
    admitted = Counter[str]()

    def sold() -> bool:
        """What one region holds comes to the others when its lease ends, should the home not answer them in time."""
        for gateway in gateways:
            admitted[gateway] += _admitted(stack, token, 20, gateway)
        return admitted.total() >= 100

    assert eventually(sold)
    assert all(admitted.values())
    assert admitted.total() + sum(_admitted(stack, token, 20, gateway) for gateway in gateways) == 100
    assert stack.stop() == 0
    again = up("regions", "--topology", "regions")
    assert [_admitted(again, token, 1, place["gateway"]) for place in again.ready["regions"].values()] == [0, 0, 0]
    assert again.stop() == 0


def _admitted(stack: Up, token: str, calls: int, gateway: str | None = None) -> int:
    """Of so many calls. `gateway`: another than the stack's first."""
    with client_of(gateway or stack.ready["gateway"], token) as client:
        return sum(client.get("/anything").status_code == httpx.codes.OK for _ in range(calls))


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])
