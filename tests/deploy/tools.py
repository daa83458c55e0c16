"""What `make deploy-tools` installs: programs, and Helm and Kubernetes' schemas as modules of its Python."""

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parent.parent.parent
DEPLOY: Final = ROOT / "deploy"
CHART: Final = DEPLOY / "helm/quotagate"
BIN: Final = ROOT / ".venv/deploy/bin"
needed = pytest.mark.skipif(not (BIN.parent / ".installed").exists(), reason="needs make deploy-tools")

_RENDER: Final = """
import json, sys
import helm_python, kubernetes_validate, yaml
chart, values, versions = json.load(sys.stdin)
found = {"lint": helm_python.lint(chart, values, strict=True), "manifests": [], "faults": []}
try:
    files = helm_python.Chart.load(chart).render(values, name="shop", namespace="quota")
except Exception as e:
    found["refused"] = str(e)
    files = {}
for file, text in files.items():
    if file.endswith("NOTES.txt"):
        found["notes"] = text
        continue
    for manifest in filter(None, yaml.safe_load_all(text)):
        found["manifests"].append(manifest)
        if manifest["apiVersion"].startswith("monitoring.coreos.com/"):
            continue  # no schema of it is there
        for version in versions:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except Exception as e:
                found["faults"].append(f"{file}: {manifest['kind']}, Kubernetes {version}: {e}")
print(json.dumps(found))
"""


def rendered(values: dict[str, Any], *versions: str) -> dict[str, Any]:
    """What Helm makes of the chart, and what each of these versions of Kubernetes says of it."""
    done = run([str(BIN / "python"), "-c", _RENDER], json.dumps([str(CHART), values, versions]))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run(argv: list[str], text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{BIN}:/usr/sbin:/usr/bin:/bin", "HOME": "/nonexistent", **environment}
    return subprocess.run(argv, input=text, env=env, capture_output=True, text=True, timeout=120, check=False)
