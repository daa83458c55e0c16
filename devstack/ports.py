"""TCP ports on the loopback address: free ones, and those that a data directory used before."""

import itertools
import json
import random
import socket
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

LOOPBACK = "127.0.0.1"

# Below the range that Linux gives to outgoing connections (32768 and up): under load one of those could take the port
# between our look and the service's bind.
_CHOICE = range(20000, 32000)
_next = itertools.count(random.randrange(len(_CHOICE)))  # noqa: S311 - only that processes begin at different places


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without it, closed connections of an earlier run (TIME_WAIT) make the port look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(taken: Collection[int] = ()) -> int:
    """One after the other: a port that nobody has bound yet is not given twice in this process, and hardly in two."""
    for number in itertools.islice(_next, len(_CHOICE)):
        port = _CHOICE[number % len(_CHOICE)]
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port between {_CHOICE.start} and {_CHOICE.stop}")


def remembered_ports(record: Path, names: Iterable[str], taken: Collection[int] = ()) -> dict[str, int]:
    """A port for each name: the one of the last run where it is still free, so that pasted addresses keep working."""
    last_ports: dict[str, int] = {}
    with suppress(FileNotFoundError, ValueError):  # a run that was killed can leave half a record: then all are new
        last_ports = json.loads(record.read_text())
    ports: dict[str, int] = {}
    for name in names:
        used = {*taken, *ports.values()}
        last = last_ports.get(name)
        ports[name] = last if last is not None and last not in used and is_free(last) else free_port(used)
    record.write_text(json.dumps(ports))
    return ports
