"""ARCHITECTURE.md names functions by file and name. A newcomer who follows it must find them."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
NAMED = re.findall(r"`([a-z_]+/[\w/]+\.py)` `([\w.]+)`", TEXT)


def names(file: Path) -> set[str]:
    """Functions as `name`, methods as `Class.name`."""
    defined = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.ClassDef):
            methods = (n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
            defined.update(f"{node.name}.{method.name}" for method in methods)
    return defined


@pytest.mark.parametrize(("file", "function"), NAMED)
def test_a_function_that_the_architecture_names_is_there(file: str, function: str) -> None:
    assert function in names(ROOT / file)


def test_a_file_that_the_architecture_names_is_there() -> None:
    own = [each for each in ROOT.iterdir() if each.is_dir() and not each.name.startswith(".")]
    names_of_files = {path.name for each in own for kind in ("*.py", "*.lua") for path in each.rglob(kind)}
    names_of_files |= {path.name for path in ROOT.glob("*.py")}
    mentioned = set(re.findall(r"`(?:[\w/]+/)?(\w+\.(?:py|lua))`", TEXT))
    assert mentioned - names_of_files == set(), "no such files"


def test_the_architecture_names_functions() -> None:
    assert len(NAMED) > 15
