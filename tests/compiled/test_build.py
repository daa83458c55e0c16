"""The builder needs a C compiler, and nothing needs the builder."""

import os
import re
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from compiled import build
from compiled.built import ROOT
from compiled.finder import SWITCH
from tests.compiled.checkouts import HERE_BUILT, Checkout
from tests.compiled.test_finder import needs_built


def wheel(checkout: Checkout, directory: Path, **environment: str) -> Path:
    done = checkout.run("-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory), **environment)
    assert done.returncode == 0, done.stderr
    (file,) = directory.glob("*.whl")
    return file


def unpacked(file: Path, directory: Path) -> Checkout:
    with zipfile.ZipFile(file) as archive:
        archive.extractall(directory)
    return Checkout(directory)


def test_without_a_compiler_the_builder_says_so_in_one_line_and_that_is_no_failure(checkout: Checkout) -> None:
    done = checkout.run("-m", "compiled.build", PATH="/nowhere", CC="")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "The gateway runs as plain Python, and was not compiled: there is no C compiler\n"
    assert not checkout.built.exists()


@pytest.mark.skipif(os.environ.get(SWITCH) != "1", reason="of `make test-compiled`, which compiles first")
def test_where_there_is_a_compiler_these_sources_are_compiled() -> None:
    try:
        build.compiler()
        build.mypy_version()
    except build.NotCompiled as e:
        pytest.skip(str(e))
    assert HERE_BUILT.is_dir(), "`make compiled` says why not"


def test_a_compiler_that_fails_leaves_plain_python_and_its_message(checkout: Checkout) -> None:
    failing = checkout.root / "failing"
    failing.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    failing.chmod(0o755)
    done = checkout.run("-m", "compiled.build", CC=str(failing))
    assert done.returncode == 0, done.stderr
    assert "out of order" in done.stdout
    assert checkout.what_runs() == "plain Python, since these sources were not compiled"


def test_what_does_not_load_where_it_was_built_is_removed(checkout: Checkout) -> None:
    checkout.place(b"\x7fELF" + bytes(1000))
    done = checkout.run("-c", "from compiled import build, built; build.try_out(built.directory_for())")
    assert "NotCompiled: they do not load:" in done.stderr
    assert checkout.what_runs() == "plain Python, since these sources were not compiled"


def test_a_wheel_that_is_built_without_a_compiler_is_pure_and_works(checkout: Checkout, tmp_path: Path) -> None:
    file = wheel(checkout, tmp_path / "wheel", PATH="/nowhere", CC="")
    assert file.name.endswith("-py3-none-any.whl")
    installed = unpacked(file, tmp_path / "installed")
    assert installed.what_runs() == "plain Python, since these sources were not compiled"
    assert installed.run("-m", "quotagate", "--help").returncode == 0


@needs_built
def test_a_wheel_with_compiled_modules_is_of_one_python_and_runs_them(checkout: Checkout, tmp_path: Path) -> None:
    checkout.built.parent.mkdir()
    checkout.built.symlink_to(HERE_BUILT)
    file = wheel(checkout, tmp_path / "wheel")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"-{python}-{python}-" in file.name
    assert unpacked(file, tmp_path / "installed").what_runs() == "compiled modules"


def test_a_wheel_is_built_by_the_compiler_that_tests_were_run_with() -> None:
    hook = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
    locked = re.search(r"^mypy==([0-9.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert hook["custom"]["dependencies"] == [f"mypy[mypyc]=={locked[1]}"]
