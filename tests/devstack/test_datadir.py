"""The data directory: kept between runs, used by one run at a time."""

import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest

from devstack import datadir, endpoints
from devstack.child import StackError
from devstack.ports import LOOPBACK, remembered_ports


def test_a_directory_of_a_newer_version_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("2\n")
    with pytest.raises(StackError) as caught:
        datadir.prepare(tmp_path)
    assert "newer version (layout 2, this release knows 1)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(StackError, match="neither empty nor"):
        datadir.prepare(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["letter.txt"]


def test_secrets_are_those_of_the_first_run_and_nobody_else_reads_them(tmp_path: Path) -> None:
    first = datadir.prepare(tmp_path / "data").secrets()
    again = datadir.prepare(tmp_path / "data").secrets()
    assert first == again
    assert len(first.jwt_secret) >= 32
    assert stat.S_IMODE((tmp_path / "data" / "secrets.json").stat().st_mode) == 0o600


def test_a_second_run_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    data = datadir.prepare(tmp_path / "data")
    with (
        datadir.locked(data),
        pytest.raises(StackError, match=rf"in use by another `quotagate up` \(process {os.getpid()}\)"),
        datadir.locked(data),
    ):
        pass


def test_a_lock_whose_owner_was_killed_is_waited_for(tmp_path: Path) -> None:
    data = datadir.prepare(tmp_path / "data")
    leftover = os.open(data.path / "lock", os.O_RDWR | os.O_CREAT)
    os.write(leftover, b"999999999")  # no such process; its servers still hold the descriptor
    fcntl.flock(leftover, fcntl.LOCK_EX)
    pauses: list[float] = []

    def servers_end(seconds: float) -> None:
        pauses.append(seconds)
        os.close(leftover)

    with datadir.locked(data, servers_end):
        assert len(pauses) == 1


def test_ports_are_those_of_the_last_run_unless_taken(tmp_path: Path) -> None:
    record = tmp_path / "ports.json"
    first = remembered_ports(record, ("valkey", "postgres"))
    assert remembered_ports(record, ("valkey", "postgres")) == first
    with socket.create_server((LOOPBACK, first["valkey"])):  # by somebody else, meanwhile
        second = remembered_ports(record, ("valkey", "postgres"))
    assert second["valkey"] != first["valkey"]
    assert second["postgres"] == first["postgres"]


def test_half_a_record_of_ports_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"valkey": 20')
    assert set(remembered_ports(tmp_path / "ports.json", ("valkey",))) == {"valkey"}


def test_a_port_in_use_is_told_with_its_flag(tmp_path: Path) -> None:
    data = datadir.prepare(tmp_path / "data")
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} is in use: .* --control-port"):
            endpoints.choose(data, 0, port)


def test_zero_picks_ports_that_differ(tmp_path: Path) -> None:
    chosen = endpoints.choose(datadir.prepare(tmp_path / "data"), 0, 0)
    ports = [
        chosen.gateway_port,
        chosen.control_port,
        chosen.upstream_port,
        chosen.ledger_ports["valkey"],
        chosen.postgres_port,
    ]
    assert len(set(ports)) == len(ports)
