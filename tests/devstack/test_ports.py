"""Ports for services that are about to be started."""

from devstack.ports import free_port


def test_a_port_that_nobody_has_bound_yet_is_not_given_again() -> None:
    ports = [free_port() for _ in range(2000)]
    assert len(set(ports)) == len(ports)
