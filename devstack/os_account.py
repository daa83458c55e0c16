"""The account that PostgreSQL runs as when we are root, and where its files are. PostgreSQL refuses to run as root.

No permission of a directory that is not ours is changed. Where the account cannot enter, its files are elsewhere.
"""

import os
import pwd
import secrets
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack.child import StackError

ACCOUNT_NAME = "pgserver"  # the one that the wheel's own launcher makes, so that a machine gets one and not two
ELSEWHERE = Path("/var/lib/quotagate")  # for files in directories that the account cannot enter


@dataclass(frozen=True)
class OsAccount:
    uid: int
    gid: int

    @property
    def ids(self) -> tuple[int, int]:
        return self.uid, self.gid

    def can_enter(self, directory: Path) -> bool:
        return self._may(directory, stat.S_IXOTH)

    def can_read(self, file: Path) -> bool:
        return self._may(file, stat.S_IROTH) and self.can_enter(file.parent)

    def can_reach(self, path: Path) -> bool:
        return all(self.can_enter(parent) for parent in path.resolve().parents)

    def _may(self, path: Path, others_bit: int) -> bool:
        status = path.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & others_bit << 6)
        if status.st_gid == self.gid:
            return bool(status.st_mode & others_bit << 3)
        return bool(status.st_mode & others_bit)


def needed_account() -> OsAccount | None:
    """None for an ordinary user, whose own account PostgreSQL runs as. For root: a system account without a login."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(ACCOUNT_NAME)
    except KeyError:
        entry = _add_account()
    return OsAccount(entry.pw_uid, entry.pw_gid)


def home_for(account: OsAccount, preferred: Path, elsewhere: Path = ELSEWHERE) -> Path:
    """A directory that the account owns: `preferred` where it can reach that, or else one below `elsewhere`, which is
    noted in a file beside `preferred`."""
    directory = preferred.parent
    directory.chmod(directory.stat().st_mode | 0o011)  # ours: passing through it shows nobody what is in it
    if account.can_reach(preferred):
        return _own(preferred, account)
    note = directory / f"{preferred.name}.location"
    if not note.exists():
        note.write_text(str(elsewhere / f"{preferred.name}-{secrets.token_hex(4)}"))
    elsewhere.mkdir(mode=0o755, exist_ok=True)
    return _own(Path(note.read_text()), account)


def reachable(
    account: OsAccount, root: Path, parts: Sequence[str], sample: str, copy_name: str, elsewhere: Path = ELSEWHERE
) -> Path:
    """`root` itself, or a copy of its `parts` below `elsewhere` where a home directory or a strict umask hides it from
    the account. `sample`: a file of the parts; whoever can read it can read all of them."""
    if account.can_reach(root / sample) and account.can_read(root / sample):
        return root
    copy = elsewhere / copy_name
    if not copy.exists():
        elsewhere.mkdir(mode=0o755, exist_ok=True)
        unfinished = elsewhere / f".{copy_name}-{secrets.token_hex(4)}"
        for part in parts:
            shutil.copytree(root / part, unfinished / part, symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        unfinished.rename(copy)
    return copy


def _own(directory: Path, account: OsAccount) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    os.chown(directory, *account.ids)
    return directory


def _add_account() -> pwd.struct_passwd:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT_NAME]
    try:
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # a fixed command line
    except (OSError, subprocess.CalledProcessError) as e:
        raise StackError(
            f"PostgreSQL refuses to run as root and the system account {ACCOUNT_NAME} could not be added ({e}); "
            "add it, or run as an ordinary user"
        ) from e
    return pwd.getpwnam(ACCOUNT_NAME)
