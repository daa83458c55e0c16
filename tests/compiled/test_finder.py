"""Compiled modules are used when they are of the sources that are there, and load. Otherwise plain Python runs."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httptools.parser.parser
import pytest

from compiled.built import LIBRARY_FILE, ROOT, digest
from compiled.modules import HOT, PACKAGES
from tests.compiled.checkouts import HERE_BUILT, Checkout

NOT_LOADED = "plain Python, since the compiled modules do not load"
BROKEN = {
    "a file that was cut": (b"\x7fELF" + bytes(1000), 2000),
    "a file that is no library": (b"\x7fELF" + bytes(1000), None),
    "a library of something else": (Path(httptools.parser.parser.__file__).read_bytes(), None),
}
needs_built = pytest.mark.skipif(not HERE_BUILT.is_dir(), reason="nothing is built of these sources: `make compiled`")


def test_the_list_names_modules_that_are_there_each_once() -> None:
    assert len(set(HOT)) == len(HOT)
    assert [name for name in HOT if not (ROOT / f"{name.replace('.', '/')}.py").is_file()] == []
    assert {name.partition(".")[0] for name in HOT} == set(PACKAGES)


def test_where_nothing_is_built_plain_python_runs_without_a_warning(checkout: Checkout) -> None:
    assert checkout.what_runs() == "plain Python, since these sources were not compiled"


@pytest.mark.parametrize("kind", BROKEN)
def test_a_compiled_module_that_does_not_load_leaves_plain_python(checkout: Checkout, kind: str) -> None:
    checkout.place(*BROKEN[kind])
    assert checkout.what_runs() == NOT_LOADED
    findings = json.loads(checkout.run("-m", "quotagate", "doctor", "--redis", "redis://127.0.0.1:1", "--json").stdout)
    (finding,) = [finding for finding in findings["findings"] if finding["what"] == "installation"]
    assert finding["good"] is False
    assert f"the gateway runs as {NOT_LOADED}: " in finding["told"]


def test_a_gateway_whose_compiled_modules_do_not_load_starts_with_one_warning(
    checkout: Checkout, tmp_path: Path
) -> None:
    checkout.place(*BROKEN["a file that is no library"])
    lines = started_gateway(checkout, tmp_path)
    warnings = [line for line in lines if line["message"] == "the compiled modules do not load"]
    assert [(line["level"], LIBRARY_FILE in line["reason"]) for line in warnings] == [("warning", True)]
    assert lines[-1]["runs"] == NOT_LOADED


def test_a_gateway_says_in_its_start_log_what_runs(checkout: Checkout, tmp_path: Path) -> None:
    assert started_gateway(checkout, tmp_path)[-1]["runs"] == "plain Python, since these sources were not compiled"


def started_gateway(checkout: Checkout, directory: Path) -> list[dict[str, str]]:
    """Its log up to where it listens."""
    config, log = directory / "gateway.yaml", directory / "log"
    settings = {
        "redis": {"url": "redis://127.0.0.1:1"},
        "auth": {"algorithms": ["HS256"], "secret": "s" * 32, "issuer": "compiled"},
        "upstreams": {"api": {"url": "http://127.0.0.1:1"}},
        "routes": [{"path": "/", "upstream": "api"}],
        "workers": 1,
    }
    config.write_text(json.dumps(settings))  # JSON is YAML
    argv = [sys.executable, "-m", "quotagate", "gateway", "--config", str(config), "--port", "0"]
    with log.open("wb") as written:
        process = subprocess.Popen(
            [*argv, "--management-port", "0"],
            cwd=checkout.root,
            env={"PYTHONPATH": str(checkout.root)},
            stdout=subprocess.DEVNULL,
            stderr=written,
        )
    try:
        for _ in range(600):
            lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
            if lines and lines[-1]["message"] == "listening":
                return lines
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        raise AssertionError(f"no gateway listens: {log.read_text()}")
    finally:
        process.terminate()
        process.wait(60)


def test_each_change_of_a_source_changes_the_digest(checkout: Checkout) -> None:
    seen = {digest(checkout.root)}
    plain = checkout.root / "quota" / "generation.py"
    plain.write_text(plain.read_text() + "\n")  # its constants may be part of a compiled module
    seen.add(digest(checkout.root))
    (checkout.root / "gateway" / "more.py").touch()
    seen.add(digest(checkout.root))
    (checkout.root / "gateway" / "more.py").rename(checkout.root / "gateway" / "other.py")
    seen.add(digest(checkout.root))
    assert len(seen) == 4
    assert len({digest(checkout.root) for _ in range(2)}) == 1


def test_a_checkout_elsewhere_has_the_same_digest(checkout: Checkout) -> None:
    assert digest(checkout.root) == HERE_BUILT.name


@needs_built
def test_what_was_built_of_these_sources_runs_and_can_be_switched_off_and_an_edit_ends_it(checkout: Checkout) -> None:
    shutil.copytree(HERE_BUILT, checkout.built)
    assert checkout.what_runs() == "compiled modules"
    assert checkout.what_runs(QUOTAGATE_COMPILED="0") == "plain Python, since QUOTAGATE_COMPILED=0"
    head = checkout.root / "gateway" / "http" / "head.py"
    head.write_text(head.read_text() + "\n")
    assert checkout.what_runs() == "plain Python, since these sources were not compiled"


@needs_built
def test_each_module_of_the_list_is_a_compiled_one_and_no_other_is(checkout: Checkout) -> None:
    shutil.copytree(HERE_BUILT, checkout.built)
    script = """
import sys
from importlib import import_module
from compiled.modules import HOT, PACKAGES
for name in HOT:
    import_module(name)
served = {name for name, module in sys.modules.items() if getattr(module, "__file__", "").endswith(".so")}
print(sorted(name for name in served if name.partition(".")[0] in PACKAGES) == sorted(HOT))
"""
    done = checkout.run("-c", script.replace('getattr(module, "__file__", "")', 'str(getattr(module, "__file__", ""))'))
    assert (done.stdout.strip(), done.stderr) == ("True", "")
