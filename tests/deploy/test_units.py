"""deploy/systemd/, as systemd reads it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.tools import DEPLOY, ROOT

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
EXPOSURE_MAX = 20  # of 100; systemd says OK below 43
PROGRAM = "/opt/quotagate/bin/quotagate"


def test_systemd_finds_no_fault_in_the_units_and_little_that_a_service_may_do(tmp_path: Path) -> None:
    units: list[Path] = []
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        units.append(tmp_path / unit.name)
        units[-1].write_text(unit.read_text().replace(PROGRAM, f"{ROOT}/.venv/bin/quotagate"))
    assert len(units) == 3
    found = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", *map(str, units)], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
    for unit in units:
        words = ["security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", str(unit)]
        judged = subprocess.run(["systemd-analyze", "--no-pager", *words], capture_output=True, text=True, check=False)
        assert judged.returncode == 0, judged.stdout[-300:]
