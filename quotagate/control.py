"""`quotagate control`: the control plane."""

from quotagate.options import ConfigFile, Host, Port


def control(config: ConfigFile = None, host: Host = None, port: Port = None) -> None:
    """Run the control plane: entitlements, usage records, the admin API."""
    from control import app

    app.run(config, host, port)
