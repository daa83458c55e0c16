"""docs/conformance.md, docs/durability.md and docs/field-reports.md name the tests that prove the promises: each is
there, and no promise is without a word."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "conformance.md"
DURABILITY = ROOT / "docs" / "durability.md"
FIELD_REPORTS = ROOT / "docs" / "field-reports.md"
PROOF = re.compile(r"`([\w/]+\.py)::(\w+)`")
NOT_YET = ("not kept yet", "not proved yet")


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def promises() -> list[tuple[str, str]]:
    """Each row's promise, and what is said to prove it."""
    rows = (line.strip().strip("|").split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("| "))
    cells = ([cell.strip() for cell in row] for row in rows)
    return [(row[0], row[1]) for row in cells if len(row) == 2 and row[0] not in ("promise", "difference")]


@pytest.mark.parametrize(("document", "at_least"), [(DOCUMENT, 50), (DURABILITY, 10), (FIELD_REPORTS, 30)])
def test_each_named_test_exists(document: Path, at_least: int) -> None:
    named = PROOF.findall(document.read_text())
    assert len(named) > at_least
    missing = [f"{file}::{name}" for file, name in named if name not in names_in(file)]
    assert missing == []


def test_each_promise_names_its_tests_or_says_that_it_has_none_yet() -> None:
    rows = promises()
    assert len(rows) > 20
    bare = [promise for promise, proof in rows if not PROOF.search(proof) and not proof.startswith(NOT_YET)]
    assert bare == []
