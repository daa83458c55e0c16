"""`make audit`: known vulnerabilities of all that the locks name, by pip-audit, which asks OSV (osv.dev). Fails where
it finds one. Where nobody can be asked it says so, and does not fail: that says nothing of what is shipped."""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from release.sbom import ROOT, TOOLS

LOCKS: Final = (
    "requirements.lock",
    "requirements-clients.lock",
    "requirements-deploy.lock",
    "requirements-release.lock",
    "requirements-uv.lock",
)
"""requirements-runtime.lock and requirements-embedded.lock are parts of the first."""
SECONDS: Final = 600.0
_AWAY: Final = re.compile(
    r"ConnectionError|Could not connect|Timeout|Max retries|Name or service not known|HTTPError|JSONDecodeError"
)
"""Of what pip-audit writes where its service does not answer, answers with an error, or is a proxy's page."""


class NotAsked(Exception):
    """Nobody could be asked; the message says why."""


class AuditFailed(Exception):
    """pip-audit itself failed; the message is its last line."""


def asked(lock: Path, seconds: float, options: Sequence[str] = ()) -> Sequence[Mapping[str, Any]]:
    """What pip-audit knows of each package of a lock. Raises NotAsked, AuditFailed."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        argv = [str(TOOLS / "pip-audit"), "--disable-pip", "--require-hashes", "--progress-spinner=off"]
        argv += ["--vulnerability-service=osv", *options, f"--requirement={lock}"]
        argv += ["--format=json", f"--output={report}"]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)
        except FileNotFoundError:
            raise NotAsked("pip-audit is not there: make release-tools") from None
        except subprocess.TimeoutExpired:
            raise NotAsked(f"its service did not answer within {seconds:.0f} s") from None
        if not report.exists():
            lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
            away = [line for line in lines if _AWAY.search(line)]
            raise NotAsked(away[-1]) if away else AuditFailed(lines[-1])
        packages: Sequence[Mapping[str, Any]] = json.loads(report.read_text())["dependencies"]
    if packages and all("skip_reason" in each for each in packages):
        raise NotAsked(f"its service knows none of the packages of {lock.name}")
    return packages


def faults(packages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each vulnerability."""
    for each in packages:
        for fault in each.get("vulns", ()):
            mended = ", ".join(fault["fix_versions"]) or "no version yet"
            yield f"{each['name']} {each['version']}: {fault['id']}, mended by {mended}"


def tell(packages: Sequence[Mapping[str, Any]]) -> None:
    """Raises SystemExit where something is found."""
    for each in packages:
        if "skip_reason" in each:
            print(f"make audit: not audited: {each['skip_reason']}")
    if found := list(dict.fromkeys(faults(packages))):
        sys.exit("\n".join(found))
    print(f"make audit: nothing is known against {sum('skip_reason' not in each for each in packages)} packages")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all answers together")
    ends, packages = time.monotonic() + parser.parse_args().seconds, list[Mapping[str, Any]]()
    try:
        for lock in LOCKS:
            packages += asked(ROOT / lock, max(ends - time.monotonic(), 1.0))
    except NotAsked as e:
        print(f"make audit: could not be run{' to its end' if packages else ''}: {e}")
        if not packages:
            return
    except AuditFailed as e:
        sys.exit(f"make audit: pip-audit failed: {e}")
    tell(packages)


if __name__ == "__main__":
    main()
