"""`make audit`: known vulnerabilities of all that the locks name, by pip-audit. Fails where it finds one. Where its
service cannot be asked it says so, and does not fail: nobody learns anything of that."""

import argparse
import json
import subprocess
import sys
import tempfile
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


def asked(locks: Sequence[Path], seconds: float, *options: str) -> Mapping[str, Any] | str:
    """What pip-audit has found; a sentence where it could not find out."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        argv = [str(TOOLS / "pip-audit"), "--disable-pip", "--require-hashes", "--progress-spinner=off", *options]
        argv += ["--format=json", f"--output={report}", *(f"--requirement={lock}" for lock in locks)]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)
        except FileNotFoundError:
            return "pip-audit is not there: make release-tools"
        except subprocess.TimeoutExpired:
            return f"its service did not answer within {seconds:g} s"
        try:
            found: Mapping[str, Any] = json.loads(report.read_text())
        except (OSError, ValueError):
            return next(iter(reversed(done.stderr.strip().splitlines())), f"pip-audit ended with {done.returncode}")
        return found


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """One for each vulnerability."""
    for each in found["dependencies"]:
        for fault in each.get("vulns", ()):
            mended = ", ".join(fault["fix_versions"]) or "no version yet"
            yield f"{each['name']} {each['version']}: {fault['id']}, mended by {mended}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for the service to answer")
    tell(asked([ROOT / lock for lock in LOCKS], parser.parse_args().seconds))


def tell(found: Mapping[str, Any] | str) -> None:
    """Raises SystemExit where something is found."""
    if isinstance(found, str):
        print(f"make audit: could not be run: {found}")
        return
    told = list(lines(found))
    if told:
        sys.exit("\n".join(told))
    print(f"make audit: nothing is known against {len(found['dependencies'])} packages")


if __name__ == "__main__":
    main()
