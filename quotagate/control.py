"""`quotagate control`: the control plane."""

import gc

from quotagate.options import ConfigFile, Host, Port


def control(config: ConfigFile = None, host: Host = None, port: Port = None) -> None:
    """Run the control plane: entitlements, usage records, the admin API."""
    gc.disable()  # what is loaded stays, and is not walked again and again meanwhile
    from control import app

    gc.enable()
    app.run(config, host, port)
