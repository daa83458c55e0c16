"""What goes with a release is true: the SBOM has what is shipped, no licence is overlooked, and an audit says whether
it could be made."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from release import audit, licences, sbom
from release.licences import Component

ROOT = Path(__file__).parent.parent.parent
REQUIREMENT = re.compile(r"^([A-Za-z0-9][^ ]*==[^ ;\\]+(?: *;[^\\\n]*)?)", re.MULTILINE)
RULES = {"allowed": ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"], "exceptions": {}}
needed = pytest.mark.skipif(
    not all((place / ".installed").exists() for place in (sbom.TOOLS.parent, sbom.SHIPPED)),
    reason="needs make release-tools",
)


@contextmanager
def osv(answer: dict[str, Any], status: int = 200) -> Iterator[str]:
    """A service of vulnerabilities that knows this of every package."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name that the base class gives it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    return sbom.made()


def locked() -> dict[str, str]:
    """Names and versions of what the image has, of the lock."""
    lines = map(Requirement, REQUIREMENT.findall((ROOT / "requirements-runtime.lock").read_text()))
    here = [line for line in lines if line.marker is None or line.marker.evaluate()]
    return {canonicalize_name(line.name): str(line.specifier).removeprefix("==") for line in here}


@needed
def test_the_sbom_has_each_package_of_the_lock_and_what_of_others_is_in_our_folders(bill: dict[str, Any]) -> None:
    found = {canonicalize_name(each["name"]): each["version"] for each in bill["components"]}
    vendored = {canonicalize_name(each["name"]): each["version"] for each in sbom.VENDORED}
    assert found == locked() | vendored
    assert len(found) > 40
    assert bill["metadata"]["component"]["name"] == "quotagate"
    wanted = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    assert "redis==" in " ".join(wanted["root-component"]), "our own package needs what pyproject.toml says"


def test_what_others_wrote_and_is_a_file_of_ours_is_in_the_list_of_it() -> None:
    beside = {file.name.removesuffix(".LICENSE.txt") for file in ROOT.glob("control/**/*.LICENSE.txt")}
    assert beside == {Path(each["file"]).name.removesuffix(".min.js") for each in sbom.VENDORED}
    for each in sbom.VENDORED:
        assert each["version"] in (ROOT / each["file"]).read_text()[:200] + each["file"]


@needed
def test_the_sbom_is_valid_cyclonedx_and_has_nothing_that_differs_each_time(bill: dict[str, Any]) -> None:
    assert sbom.fault_of(json.dumps(bill)) is None
    assert "serialNumber" not in bill
    assert "timestamp" not in bill["metadata"]
    assert sbom.fault_of(json.dumps({**bill, "specVersion": 7})) is not None


@needed
def test_the_sbom_tells_nothing_of_the_machine_that_it_was_made_on(bill: dict[str, Any]) -> None:
    text = json.dumps(bill)
    asked = [line.partition("//")[2].partition("/")[0] for line in _indexes()]
    told = {str(ROOT), str(Path.home()), "file://", "direct_url", *asked} - {"", "/"}
    # Not behind a letter: a checkout may be at /project, which is also a part of addresses.
    assert [word for word in told if re.search(rf"(?<![\w.]){re.escape(word)}", text)] == []


def _indexes() -> list[str]:
    """Where pip looks, but for the public one: packages name that themselves."""
    done = subprocess.run(["python3", "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    return [url for url in re.findall(r"https?://[^'\s]+", done.stdout) if "pypi.org" not in url]


@needed
def test_each_licence_of_what_is_shipped_is_allowed_or_has_a_reason(bill: dict[str, Any]) -> None:
    components = list(licences.components_of(bill))
    rules = licences.rules()
    assert list(licences.faults(components, rules)) == []
    assert all(len(each["reason"]) > 20 for each in rules["exceptions"].values())
    assert "| htmx.org | 4.0.1 | 0BSD |" in licences.table(components)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (("MIT",), []),
        (("MIT OR GPL-3.0-only",), []),
        (("MIT AND (GPL-3.0-only OR Apache-2.0)",), []),
        (("Apache-2.0 WITH LLVM-exception",), []),
        (("MIT AND GPL-3.0-only",), ["x 1: MIT AND GPL-3.0-only"]),
        (("GPL-3.0-only WITH LLVM-exception",), ["x 1: GPL-3.0-only WITH LLVM-exception"]),
        (("MIT", "AGPL-3.0-only"), ["x 1: MIT, AGPL-3.0-only"]),
        (("(MIT",), ["x 1: (MIT"]),
        (("MIT MIT",), ["x 1: MIT MIT"]),
        ((), ["x 1: none is told"]),
    ],
)
def test_a_licence_that_is_not_allowed_is_named(told: tuple[str, ...], said: list[str]) -> None:
    assert list(licences.faults([Component("x", "1", told)], RULES)) == said


def test_an_exception_is_for_one_licence_and_for_no_longer_than_it_is_needed() -> None:
    rules = {**RULES, "exceptions": {"x": {"licence": "MPL-2.0"}, "y": {"licence": "MPL-2.0"}}}
    assert list(licences.faults([Component("x", "1", ("MPL-2.0",))], rules)) == ["y: an exception that nothing needs"]
    both = [Component("x", "1", ("GPL-3.0-only",)), Component("y", "1", ("MPL-2.0",))]
    assert list(licences.faults(both, rules)) == ["x 1: GPL-3.0-only, and the exception is for MPL-2.0"]


@needed
def test_an_audit_that_nobody_answers_says_so_and_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "LOCKS", ("requirements-uv.lock",))
    monkeypatch.setattr(audit, "asked", partial(audit.asked, options=("--osv-url=http://127.0.0.1:1",)))
    monkeypatch.setattr(sys, "argv", ["audit", "--seconds", "60"])
    audit.main()
    assert re.fullmatch(r"make audit: could not be run: .*ConnectionError.*\n", capsys.readouterr().out)


@needed
def test_a_service_that_answers_with_an_error_was_not_asked_either() -> None:
    with osv({}, status=503) as url, pytest.raises(audit.NotAsked, match="503 Server Error"):
        audit.asked(ROOT / "requirements-uv.lock", 60, options=(f"--osv-url={url}",))


def test_what_was_found_before_a_service_went_away_is_still_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {"name": "x", "version": "1.0", "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["1.1"]}]}

    def asked(lock: Path, seconds: float) -> list[dict[str, Any]]:
        if lock.name != audit.LOCKS[0]:
            raise audit.NotAsked("it is away")
        return [bad]

    monkeypatch.setattr(audit, "asked", asked)
    monkeypatch.setattr(sys, "argv", ["audit"])
    with pytest.raises(SystemExit, match=r"x 1\.0: PYSEC-2026-1"):
        audit.main()
    assert capsys.readouterr().out == "make audit: could not be run to its end: it is away\n"


@needed
def test_an_audit_by_a_service_that_answers_finds_what_it_knows() -> None:
    fault = {
        "id": "PYSEC-2026-1",
        "modified": "2026-01-01T00:00:00Z",
        "affected": [{"package": {"name": "uv", "ecosystem": "PyPI"}, "versions": ["0.13.9"], "ranges": []}],
    }
    lock = ROOT / "requirements-uv.lock"
    for answer, known in (({}, 0), ({"vulns": [fault]}, 1)):
        with osv(answer) as url:
            [uv] = audit.asked(lock, 60, options=(f"--osv-url={url}",))
        assert len(uv["vulns"]) == known


@needed
def test_a_lock_that_cannot_be_audited_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "some.lock").write_text("certifi==1\ncertifi==2\n")
    with pytest.raises(audit.AuditFailed):
        audit.asked(tmp_path / "some.lock", 60)


def test_an_audit_that_finds_something_fails_and_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    fault = {"id": "PYSEC-2026-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}
    bad, good = {"name": "x", "version": "1.0", "vulns": [fault]}, {"name": "y", "version": "2", "vulns": []}
    skipped = {"name": "z", "skip_reason": "z is not known"}
    with pytest.raises(SystemExit, match=re.escape("x 1.0: PYSEC-2026-1, mended by 1.1")):
        audit.tell([good, bad, bad])
    audit.tell([good, skipped])
    assert capsys.readouterr().out.splitlines() == [
        "make audit: not audited: z is not known",
        "make audit: nothing is known against 1 packages",
    ]


def test_all_locks_are_audited() -> None:
    parts = {"requirements-runtime.lock", "requirements-embedded.lock"}
    assert {file.name for file in ROOT.glob("requirements*.lock")} - parts == set(audit.LOCKS)
    whole = set(REQUIREMENT.findall((ROOT / "requirements.lock").read_text()))
    for part in parts:
        names = {line.partition("==")[0] for line in REQUIREMENT.findall((ROOT / part).read_text())}
        assert names <= {line.partition("==")[0] for line in whole}
