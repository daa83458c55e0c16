"""What commands of the command line come to, on stores that a test names."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def outcomes_of(commands: tuple[str, ...], dsn: str, redis_url: str, directory: Path) -> dict[str, tuple[int, str]]:
    """Exit code of each, and what it says is wrong."""
    secrets = {"QUOTAGATE_JWT_SECRET": "of-the-tests-and-long-enough-for-hs256", "QUOTAGATE_ADMIN_TOKEN": "x" * 32}
    env = {**os.environ, **secrets, "QUOTAGATE_POSTGRES_DSN": dsn, "QUOTAGATE_REDIS_URL": redis_url}

    def run(command: str) -> tuple[int, str]:
        argv = [sys.executable, "-m", "quotagate", *command.split()]
        done = subprocess.run(
            argv,
            env=env,
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if command == "doctor":  # its findings are its output
            return done.returncode, " | ".join(done.stdout.splitlines())
        return done.returncode, done.stderr

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(commands, pool.map(run, commands), strict=True))


def assert_plain(results: dict[str, tuple[int, str]], *words: str) -> None:
    for command, (exit_code, line) in results.items():
        assert exit_code in {1, 2}, (command, exit_code, line)
        assert len(line.splitlines()) == 1, (command, line)
        assert any(word in line for word in words), (command, line)
