"""The session of the README, as it is written there."""

import os
import re
import subprocess
from pathlib import Path

from tests.e2e.running import Up

ROOT = Path(__file__).parents[2]


def test_protect_your_plugin_runs_as_it_is_written(stack: Up) -> None:
    page = (ROOT / "README.md").read_text()
    [session] = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    environment = {**os.environ, "DATA_DIR": str(stack.data_dir)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", session],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"the gateway says (\d+)", done.stdout) == ["200", "401", "200", "200", "401"], done.stdout
    assert done.stdout.rstrip().endswith("revoked (reuse)    shop.example.com"), done.stdout
    assert done.stderr.count("ActivateAgain: An earlier refresh token was shown again") == 2, done.stderr
