"""The address that a plane serves on: bound before anything else starts, so that a conflict is reported at once."""

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

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


def bound_unix(path: Path, mode: int) -> socket.socket:
    """The same for a Unix socket, which replaces one that nobody listens at. Raises SettingsError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_abandoned(path)
        listener.bind(str(path))
        path.chmod(mode)
    except OSError as e:
        listener.close()
        raise SettingsError(f"cannot listen on {path}: {e.strerror or e}") from e
    listener.set_inheritable(True)
    return listener


def _remove_abandoned(path: Path) -> None:
    """Raises OSError where somebody listens at the socket, or it is none."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(None, "there is something that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # somebody listens, whose queue is full
    raise OSError(None, "somebody listens there")


def remove_unix(listener: socket.socket) -> None:
    """Nobody connects to it any more; what has connected is still accepted. Nothing for a socket of TCP."""
    if listener.family == socket.AF_UNIX:
        with suppress(OSError):
            os.unlink(listener.getsockname())  # noqa: PTH108 - it is no Path


def address_of(listener: socket.socket) -> str:
    """Host and port, the port that the system chose, where the settings say 0; or a Unix socket's path."""
    name = listener.getsockname()
    return f"unix:{name}" if listener.family == socket.AF_UNIX else spelt(*name[:2])


def spelt(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
