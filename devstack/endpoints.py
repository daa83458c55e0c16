"""Where the services of one run are."""

from collections.abc import Mapping
from dataclasses import dataclass

from common.redis_topology import Topology
from devstack import postgres, sample_process
from devstack.child import StackError
from devstack.datadir import DataDirectory
from devstack.ports import LOOPBACK, free_port, is_free, remembered_ports
from devstack.topology import PORTS

DATABASE = "quotagate"
APPLICATION = "quotagate"  # a role
INNER_SERVICES = ("metrics", "upstream", "postgres", "stripe", "oidc")


@dataclass(frozen=True)
class Endpoints:
    gateway_port: int
    control_port: int
    ledger_ports: Mapping[str, int]
    """Of the servers that keep the ledger, by `devstack/topology.py`'s names."""
    metrics_port: int
    upstream_port: int
    postgres_port: int
    stripe_port: int
    oidc_port: int

    @property
    def ports(self) -> set[int]:
        """All of them."""
        return {each for each in vars(self).values() if isinstance(each, int)} | set(self.ledger_ports.values())

    @property
    def gateway(self) -> str:
        return f"http://{LOOPBACK}:{self.gateway_port}"

    @property
    def control(self) -> str:
        return f"http://{LOOPBACK}:{self.control_port}"

    @property
    def metrics(self) -> str:
        return f"http://{LOOPBACK}:{self.metrics_port}/metrics"

    @property
    def upstream(self) -> str:
        return sample_process.url(self.upstream_port)

    @property
    def postgres(self) -> str:
        """For the control plane, whose role can add to the journal and the events, and change neither."""
        return postgres.dsn(self.postgres_port, DATABASE, APPLICATION)

    @property
    def postgres_owner(self) -> str:
        """For migrations, and for whoever administers the database."""
        return postgres.dsn(self.postgres_port, DATABASE)


def choose(
    data: DataDirectory, gateway_port: int, control_port: int, topology: Topology = Topology.SINGLE
) -> Endpoints:
    """These two ports (0: any free one); the other services have those of the last run.

    Raises `StackError` for a port in use."""
    gateway = _requested(gateway_port, "--gateway-port")
    control = _requested(control_port, "--control-port", taken=gateway)
    of_ledger = PORTS[topology]
    inner = remembered_ports(data.ports_file, (*INNER_SERVICES, *of_ledger), taken={gateway, control})
    ledger_ports = {name: inner[name] for name in of_ledger}
    return Endpoints(gateway, control, ledger_ports, *(inner[name] for name in INNER_SERVICES))


def _requested(port: int, flag: str, taken: int | None = None) -> int:
    if port == 0:
        return free_port(taken=() if taken is None else (taken,))
    if port == taken or not is_free(port):
        raise StackError(f"port {port} is in use: free it, or choose another with {flag} (0 picks a free one)")
    return port
