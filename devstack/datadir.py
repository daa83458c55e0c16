"""The data directory of the embedded stack: it outlives a run, and one run at a time uses it."""

import fcntl
import json
import os
import secrets
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack.child import POLL_SECONDS, Pause, StackError

DEFAULT = Path(".quotagate")
LAYOUT = 1  # raise it when an older release could not run on what a newer one wrote
LEFTOVERS_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Secrets:
    jwt_secret: str
    admin_token: str
    stripe_key: str
    stripe_webhook_secret: str
    """Both Stripe secrets are of the double: they open nothing at Stripe."""
    master_key: str
    """Seals the private keys with which the control plane signs tokens. Without it the database's are lost."""


@dataclass(frozen=True)
class DataDirectory:
    path: Path

    @property
    def ready_file(self) -> Path:
        return self.path / "ready.json"

    @property
    def gateway_settings(self) -> Path:
        """Those that the stack makes at each start, where nobody names others."""
        return self.path / "gateway.yaml"

    @property
    def control_settings(self) -> Path:
        """The same of the control plane."""
        return self.path / "control.yaml"

    def control_settings_of(self, region: str) -> Path:
        """The same of another region's."""
        return self.path / f"control-{region}.yaml"

    @property
    def people_file(self) -> Path:
        """Whom the sample identity provider knows."""
        return self.path / "people.json"

    @property
    def ports_file(self) -> Path:
        return self.path / "ports.json"

    @property
    def further_ports_file(self) -> Path:
        return self.path / "further-ports.json"

    @property
    def history_file(self) -> Path:
        """What is told of the demo history, where there is one."""
        return self.path / "history.json"

    @property
    def stripe_file(self) -> Path:
        """The account of the Stripe double."""
        return self.path / "stripe.json"

    def log_of(self, service: str) -> Path:
        return self.path / "logs" / f"{service}.log"

    def secrets(self) -> Secrets:
        """Those of the first run, so that tokens that were handed out then stay valid."""
        file = self.path / "secrets.json"
        existing = json.loads(file.read_text()) if file.exists() else {}
        new = {
            "jwt_secret": secrets.token_urlsafe(48),
            "admin_token": f"qga_{secrets.token_urlsafe(32)}",
            "stripe_key": f"sk_test_{secrets.token_hex(24)}",
            "stripe_webhook_secret": f"whsec_{secrets.token_hex(24)}",
            "master_key": b64encode(secrets.token_bytes(32)).decode(),
        }
        if new.keys() - existing.keys():  # the first run, or the first one of this release
            write_private(file, {**new, **existing})
        return read_secrets(self.path)

    def announce(self, facts: Mapping[str, Any]) -> None:
        write_private(self.ready_file, facts)

    def withdraw(self) -> None:
        self.ready_file.unlink(missing_ok=True)


def read_secrets(path: Path) -> Secrets:
    """Raises `StackError` where nothing has been started on this data directory yet."""
    try:
        return Secrets(**json.loads((path / "secrets.json").read_text()))
    except FileNotFoundError:
        raise StackError(f"{path} holds no secrets yet: run `quotagate up --data-dir {path}` first") from None


def prepare(path: Path) -> DataDirectory:
    """Makes the directory, or takes one of ours. Raises `StackError` for any other, and for one of a newer version."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        version_file = path / "version"
        if not version_file.exists():
            if any(path.iterdir()):
                raise StackError(
                    f"{path} is neither empty nor a data directory of quotagate: choose another --data-dir"
                )
            version_file.write_text(f"{LAYOUT}\n")
        layout = version_file.read_text().strip()
    except OSError as e:
        raise StackError(f"data directory {path} cannot be used: {e.strerror}") from e
    if not layout.isdecimal() or int(layout) > LAYOUT:
        raise StackError(
            f"data directory {path} is of a newer version (layout {layout}, this release knows {LAYOUT}): "
            "upgrade quotagate or choose another --data-dir"
        )
    return DataDirectory(path.resolve())


@contextmanager
def locked(data: DataDirectory, pause: Pause = time.sleep) -> Iterator[int]:
    """Holds the lock of the directory, until the last process has ended that inherited the descriptor that this yields.

    So after a supervisor was killed, the next one waits until its servers have let go of their files."""
    descriptor = os.open(data.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + LEFTOVERS_TIMEOUT_SECONDS
        while not _try_lock(descriptor):
            owner = os.pread(descriptor, 32, 0).decode()
            if _lives(owner) or time.monotonic() > deadline:
                raise StackError(f"data directory {data.path} is in use by another `quotagate up` (process {owner})")
            pause(POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def write_private(file: Path, content: Mapping[str, Any]) -> None:
    """Writes all of the content or none; only the owner can read it, from the first moment."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        json.dump(content, f, indent=2)
    unfinished.replace(file)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lives(process_id: str) -> bool:
    try:
        os.kill(int(process_id), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True
