"""Under root, PostgreSQL's files lie where its account can reach them, and nobody's permissions are loosened."""

import os
import stat
from pathlib import Path

import pytest

from devstack import os_account
from devstack.os_account import OsAccount

STRANGER = OsAccount(uid=54321, gid=54321)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "chown", lambda *_: None)
    return tmp_path / "elsewhere"


def test_a_directory_behind_a_closed_door_is_out_of_reach(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    tmp_path.chmod(0o700)
    assert not STRANGER.can_reach(open_to_all)
    assert OsAccount(os.getuid(), os.getgid()).can_reach(open_to_all)


def test_what_is_out_of_reach_is_kept_elsewhere_and_found_again(tmp_path: Path, elsewhere: Path) -> None:
    home = tmp_path / "home"
    data = home / "data"
    data.mkdir(parents=True)
    home.chmod(0o700)
    first = os_account.home_for(STRANGER, data / "postgres", elsewhere)
    assert first.parent == elsewhere
    assert os_account.home_for(STRANGER, data / "postgres", elsewhere) == first
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_new_data_directory_never_meets_the_old_ones_database(tmp_path: Path, elsewhere: Path) -> None:
    homes = set()
    tmp_path.chmod(0o700)
    for _ in range(2):
        data = tmp_path / "data"
        data.mkdir()
        homes.add(os_account.home_for(STRANGER, data / "postgres", elsewhere))
        (data / "postgres.location").unlink()
        data.rmdir()
    assert len(homes) == 2


def test_programs_that_the_account_cannot_read_are_copied_once(tmp_path: Path, elsewhere: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "wheel" / "bin").mkdir(parents=True)
    (venv / "wheel.libs").mkdir()
    (venv / "wheel" / "bin" / "postgres").write_text("program")
    (venv / "wheel" / "bin" / "postgres").chmod(0o700)
    venv.chmod(0o700)
    for _ in range(2):
        parts = ("wheel", "wheel.libs")
        root = os_account.reachable(STRANGER, venv, parts, "wheel/bin/postgres", "wheel-1.0", elsewhere)
        assert root == elsewhere / "wheel-1.0"
    assert stat.S_IMODE((root / "wheel" / "bin" / "postgres").stat().st_mode) == 0o755
    assert (root / "wheel.libs").is_dir()
    assert stat.S_IMODE(venv.stat().st_mode) == 0o700
