"""`make sbom`: what is shipped, as a CycloneDX document in build/: each package of requirements-runtime.lock with its
licence and what it needs, and what of others is in our own folders.

cyclonedx-py reads an environment that is made of the lock and of nothing else. What it writes has no time and no number
of its own: of the same lock the same document is made.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
TOOLS: Final = ROOT / ".venv" / "release" / "bin"
SHIPPED: Final = ROOT / ".venv" / "shipped"
"""An environment of requirements-runtime.lock."""
DOCUMENT: Final = ROOT / "build" / "sbom.cdx.json"
SPECIFICATION: Final = "1.6"

VENDORED: Final = (
    {
        "file": "control/console/static/htmx-4.0.1.min.js",
        "name": "htmx.org",
        "version": "4.0.1",
        "purl": "pkg:npm/htmx.org@4.0.1",
        "licence": "0BSD",
        "about": "high power tools for html",
    },
)
"""What others wrote and is a file of ours."""

_VALIDATE: Final = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
fault = JsonStrictValidator(SchemaVersion.from_version(sys.argv[1])).validate_str(sys.stdin.read())
sys.exit(None if fault is None else str(fault))
"""


def made() -> dict[str, Any]:
    """The document. Raises subprocess.CalledProcessError."""
    argv = [
        str(TOOLS / "cyclonedx-py"),
        "environment",
        "--pyproject",
        str(ROOT / "pyproject.toml"),
        "--mc-type=application",
        f"--spec-version={SPECIFICATION}",
        "--output-format=JSON",
        "--output-reproducible",
        str(SHIPPED),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    document["components"] = sorted(
        [*document.get("components", []), *map(_vendored, VENDORED)], key=lambda each: str(each["name"]).lower()
    )
    return document


def _vendored(told: dict[str, str]) -> dict[str, Any]:
    content = (ROOT / told["file"]).read_bytes()
    return {
        "type": "library",
        "bom-ref": told["purl"],
        "name": told["name"],
        "version": told["version"],
        "description": told["about"],
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}],
        "licenses": [{"license": {"id": told["licence"]}}],
        "purl": told["purl"],
        "evidence": {"occurrences": [{"location": told["file"]}]},
    }


def fault_of(document: str) -> str | None:
    """Why this is no CycloneDX document; None where it is one."""
    argv = [str(TOOLS / "python"), "-c", _VALIDATE, SPECIFICATION]
    done = subprocess.run(argv, input=document, capture_output=True, text=True, check=False)
    return done.stderr.strip() or "it cannot be validated" if done.returncode else None


def main() -> None:
    try:
        text = json.dumps(made(), indent=2) + "\n"
    except subprocess.CalledProcessError as e:
        sys.exit(f"no document was made: {e.stderr.strip()}")
    if (fault := fault_of(text)) is not None:
        sys.exit(f"what was made is no CycloneDX document: {fault}")
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(text)
    print(f"{DOCUMENT.relative_to(ROOT)}: {len(json.loads(text)['components'])} components")


if __name__ == "__main__":
    main()
