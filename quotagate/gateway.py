"""`quotagate gateway`: the data plane."""

import gc
from typing import Annotated

import typer

from quotagate.options import ConfigFile, Host, Port


def gateway(
    config: ConfigFile = None,
    host: Host = None,
    port: Port = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Worker processes, which share the port.  [default: as in the settings]"),
    ] = None,
    management_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="Port for metrics; 0 chooses a free one.  [default: as in the settings]",
        ),
    ] = None,
) -> None:
    """Run the gateway in front of your API."""
    gc.disable()  # what is loaded stays, and is not walked again and again meanwhile
    from gateway.process import server

    gc.enable()
    server.run(config, host, port, workers, management_port)
