"""The address that a plane serves on: bound before anything else starts, so that a conflict is reported at once."""

import socket

from common.settings_file import SettingsError


def bound(host: str, port: int) -> socket.socket:
    """A bound socket; the server that uses it calls `listen`. Raises SettingsError where it cannot be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as e:  # also for a name without an address
        listener.close()
        raise SettingsError(f"cannot listen on {spelt(host, port)}: {e.strerror or e}") from e
    listener.set_inheritable(True)
    return listener


def address_of(listener: socket.socket) -> str:
    """Host and port; the port that the system chose, where the settings say 0."""
    host, port = listener.getsockname()[:2]
    return spelt(host, port)


def spelt(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
