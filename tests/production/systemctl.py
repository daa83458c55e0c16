"""systemctl, as far as docs/production.md uses it: it reads the same units, and starts what they say."""

import configparser
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

MACHINE = Path(os.environ["MACHINE"])
UNITS = MACHINE / "etc/systemd/system"
PIDS = MACHINE / "run/pids"
START_SECONDS = 120.0


def main(words: list[str]) -> None:
    match words:
        case ["daemon-reload"]:
            if shutil.which("systemd-analyze"):
                subprocess.run(["systemd-analyze", "--man=no", "verify", *UNITS.glob("*.service")], check=True)
        case ["enable", "--now", *names]:
            for name in names:
                _start(name, *_unit(name))
                # The page goes on with other work; here nothing takes the time that a start needs.
                _wait(partial(_ready, name))
        case ["restart", "redis-server"]:
            _start("redis-server", ["redis-server", str(MACHINE / "etc/redis/redis.conf")], dict(os.environ))
            port = int(_setting("etc/redis/redis.conf", "port"))
            _wait(lambda: _accepts(port))
        case ["restart", "nginx"]:
            _start("nginx", ["nginx", "-g", "daemon off;"], dict(os.environ))
            _wait(lambda: (MACHINE / "run/nginx.pid").exists())
        case ["stop-all"]:
            for file in sorted(PIDS.glob("*")):
                with suppress(ProcessLookupError):
                    os.killpg(int(file.read_text()), signal.SIGTERM)
        case _:
            sys.exit(f"systemctl: nobody told this stand-in what {words} is")


def _start(name: str, argv: list[str], env: dict[str, str]) -> None:
    PIDS.mkdir(exist_ok=True)
    with (MACHINE / f"var/log/{name}.log").open("ab") as log:
        process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    (PIDS / name).write_text(str(process.pid))


def _unit(name: str) -> tuple[list[str], dict[str, str]]:
    """Command line and environment: nothing of ours goes in, as with systemd."""
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # configparser's own way to keep the case
    unit.read(UNITS / f"{name}.service")
    service = unit["Service"]
    lines = Path(service["EnvironmentFile"]).read_text().splitlines()
    return shlex.split(service["ExecStart"]), {"PATH": "/usr/bin:/bin", **dict(line.split("=", 1) for line in lines)}


def _ready(name: str) -> bool:
    file = f"etc/quotagate/{name.removeprefix('quotagate-')}.yaml"
    listen = _setting(file, "listen:")  # {host: 127.0.0.1, port: 8080}
    port = listen.rpartition(" ")[2].rstrip("}")
    try:
        return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5).status == 200)
    except OSError:
        return False


def _setting(file: str, name: str) -> str:
    lines = (MACHINE / file).read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{name} ")).removeprefix(f"{name} ")


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            sys.exit("systemctl: it did not start in time")
        time.sleep(0.05)


main(sys.argv[1:])
