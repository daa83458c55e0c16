"""Further gateways and control planes of a stack, beside the first of each: where they are."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from devstack.datadir import DataDirectory
from devstack.ports import LOOPBACK, remembered_ports


@dataclass(frozen=True)
class Further:
    gateways: tuple[tuple[str, int, int], ...]
    """Name, port, port of the metrics."""
    control_planes: tuple[tuple[str, int], ...]
    """Name, port."""

    def gateway_urls(self) -> list[str]:
        return [f"http://{LOOPBACK}:{port}" for _, port, _ in self.gateways]

    def metrics_urls(self) -> list[str]:
        """Of the gateways."""
        return [f"http://{LOOPBACK}:{port}/metrics" for _, _, port in self.gateways]

    def at(self, region: str) -> tuple[str, str, str]:
        """Gateway, control plane and metrics of the gateway, where each region has one of them."""
        [place] = [
            (f"http://{LOOPBACK}:{port}", f"http://{LOOPBACK}:{control}", f"http://{LOOPBACK}:{metrics}/metrics")
            for name, port, metrics in self.gateways
            for control_name, control in self.control_planes
            if (name, control_name) == (f"gateway-{region}", f"control-{region}")
        ]
        return place

    def control_urls(self) -> list[str]:
        return [f"http://{LOOPBACK}:{port}" for _, port in self.control_planes]


def numbered(kind: str, count: int) -> list[str]:
    """The names of so many, without the first."""
    return [f"{kind}-{number}" for number in range(2, count + 1)]


def choose(
    data: DataDirectory, gateway_names: Sequence[str], control_names: Sequence[str], taken: Collection[int]
) -> Further:
    """`taken`: the ports of all else. They have those of the last run."""
    names = [*gateway_names, *(f"metrics of {name}" for name in gateway_names), *control_names]
    ports = remembered_ports(data.further_ports_file, names, taken) if names else {}
    return Further(
        tuple((name, ports[name], ports[f"metrics of {name}"]) for name in gateway_names),
        tuple((name, ports[name]) for name in control_names),
    )
