"""Further gateways and control planes of a stack, beside the first of each: where they are."""

from collections.abc import Collection
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

    def control_urls(self) -> list[str]:
        return [f"http://{LOOPBACK}:{port}" for _, port in self.control_planes]


def choose(data: DataDirectory, gateways: int, control_planes: int, taken: Collection[int]) -> Further:
    """So many of each, the first included; `taken` are the ports of all else. They have those of the last run."""
    gateway_names = [f"gateway-{number}" for number in range(2, gateways + 1)]
    control_names = [f"control-{number}" for number in range(2, control_planes + 1)]
    names = [*gateway_names, *(f"metrics of {name}" for name in gateway_names), *control_names]
    ports = remembered_ports(data.further_ports_file, names, taken) if names else {}
    return Further(
        tuple((name, ports[name], ports[f"metrics of {name}"]) for name in gateway_names),
        tuple((name, ports[name]) for name in control_names),
    )
