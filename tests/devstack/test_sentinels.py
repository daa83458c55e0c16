"""Servers behind Sentinels come back as they were last: nobody begins anew from a replica that had been left behind."""

from pathlib import Path

import pytest

from common.redis_topology import Topology
from devstack.child import StackError
from devstack.ledger_servers import servers
from devstack.sentinels import Group


def note_failover(directory: Path, port: int) -> None:
    """As a Sentinel writes it down."""
    text = f"sentinel monitor quotagate 127.0.0.1 {port} 2\nsentinel config-epoch quotagate 1\n"
    (directory / "sentinel-1" / "sentinel.conf").write_text(text)


def test_the_primary_of_the_next_start_is_the_one_of_the_newest_failover(tmp_path: Path) -> None:
    group = Group(tmp_path, [7001, 7002, 7003], [7011, 7012, 7013], tmp_path)
    assert group.prepare() == 0
    # What Sentinels write down: one of them was away during the second failover.
    for number, (port, epoch) in enumerate([(7003, 2), (7003, 2), (7002, 1)]):
        file = tmp_path / f"sentinel-{number + 1}" / "sentinel.conf"
        file.write_text(f"sentinel monitor quotagate 127.0.0.1 {port} 2\nsentinel config-epoch quotagate {epoch}\n")
    assert group.prepare() == 2
    assert "replicaof" not in (tmp_path / "valkey-3" / "valkey.conf").read_text()
    for other in ("valkey", "valkey-2"):
        assert "replicaof 127.0.0.1 7003" in (tmp_path / other / "valkey.conf").read_text()
    assert group.prepare() == 2, "also where it was stopped before a Sentinel had written anything"


def test_a_primary_whose_port_has_changed_is_still_the_one_of_the_newest_failover(tmp_path: Path) -> None:
    Group(tmp_path, [7001, 7002, 7003], [7011, 7012, 7013], tmp_path).prepare()
    note_failover(tmp_path, 7003)
    assert Group(tmp_path, [7001, 7002, 7009], [7011, 7012, 7013], tmp_path).prepare() == 2
    assert "replicaof 127.0.0.1 7009" in (tmp_path / "valkey" / "valkey.conf").read_text()


def test_one_server_does_not_begin_on_data_that_a_failover_left_behind(tmp_path: Path) -> None:
    Group(tmp_path, [7001, 7002, 7003], [7011, 7012, 7013], tmp_path).prepare()
    note_failover(tmp_path, 7002)
    with pytest.raises(StackError, match=r"valkey-2 in .* had the ledger last: go on with --topology sentinel"):
        servers(Topology.SINGLE, tmp_path, {"valkey": 7001}, tmp_path, ())
    note_failover(tmp_path, 7001)
    servers(Topology.SINGLE, tmp_path, {"valkey": 7021}, tmp_path, ())
