"""docs/production.md, command by command."""

import os
import shutil
from pathlib import Path

import pytest

from devstack import sample_process
from tests.production.machine import DOCUMENT, Machine


@pytest.mark.skipif(
    shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None
    or any(shutil.which(tool) is None for tool in ("bash", "curl", "openssl")),
    reason="needs nginx, bash, curl and openssl",
)
def test_the_commands_of_the_walk_through_lead_from_an_empty_machine_to_a_metered_request(
    stack_directory: Path, sample_upstream: str
) -> None:
    directory = stack_directory / "production"
    directory.mkdir()
    sample_process.forget_hits(sample_upstream)
    machine = Machine(directory, int(sample_upstream.rpartition(":")[2]))
    done = machine.run()
    logs = "\n".join(machine.log(name)[-2000:] for name in ("quotagate-control", "quotagate-gateway", "nginx"))
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n{logs}"
    out = done.stdout.replace("\r", "")
    assert 'RateLimit: "api_calls";r=9999;' in out or 'ratelimit: "api_calls";r=9999;' in out
    assert "9,999 of 10,000 left" in out
    assert "WRONG" not in out
    assert sample_process.hits(sample_upstream)["by_org"] == {"acme": 1}


def test_the_readme_names_the_walk_through() -> None:
    assert DOCUMENT.name in (DOCUMENT.parent.parent / "README.md").read_text()
