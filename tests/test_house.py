"""How this repository is written, where no linter looks: an exemption has its reason, and a fixture has its type."""

import ast
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "bench",
    "common",
    "compiled",
    "control",
    "devstack",
    "gateway",
    "identity",
    "quota",
    "quotagate",
    "release",
    "tests",
)
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
EXEMPTION = re.compile(r"#\s*(?:noqa|type:\s*ignore)(.*)")
CHARACTERS = re.compile(r"\[(?:\\.|[^]\\])*\]")
POSSESSIVE_GROUP = re.compile(r"\)[*+?]\+|\)\{[0-9,]+\}\+")
REASONED = re.compile(r"(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*|\[[a-z-]+(?:,\s*[a-z-]+)*\])[\s#-]+\S")


@cache
def sources() -> list[Path]:
    return [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]


def unreasoned(file: Path) -> Iterator[str]:
    if EXEMPTION.search(file.read_text()) is None:  # to look is much quicker than to read it as Python does
        return
    with tokenize.open(file) as opened:
        comments = [token for token in tokenize.generate_tokens(opened.readline) if token.type == tokenize.COMMENT]
    for comment in comments:
        exemption = EXEMPTION.search(comment.string)
        if exemption is not None and REASONED.match(exemption[1]) is None:
            yield f"{file.relative_to(ROOT)}:{comment.start[0]}: {comment.string}"


@cache
def functions(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    nodes = ast.walk(ast.parse(file.read_text()))
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def is_fixture(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("fixture" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_each_exemption_from_a_linter_names_its_rule_and_its_reason() -> None:
    assert [fault for file in sources() for fault in unreasoned(file)] == []


def test_no_pattern_repeats_a_group_possessively() -> None:
    """Python up to 3.11.4, that of Debian 12 among them, matches too much there: python/cpython#106052. `/a/..` went
    upstream as a canonical path. An atomic group says the same, and is matched correctly."""
    files = [file for file in sources() if file != Path(__file__)]
    assert [str(file) for file in files if POSSESSIVE_GROUP.search(CHARACTERS.sub("", file.read_text()))] == []


def test_a_module_has_at_most_400_lines_and_a_function_60() -> None:
    """Whatever is longer is two things, or says in this test why it is not."""
    assert [str(file) for file in sources() if len(file.read_text().splitlines()) > MODULE_LINES_MAX] == []
    long = [
        f"{file.relative_to(ROOT)}:{function.lineno}: {function.name}"
        for file in sources()
        for function in functions(file)
        if (function.end_lineno or 0) - function.lineno >= FUNCTION_LINES_MAX
    ]
    assert long == []


def test_what_a_test_asks_for_has_a_type() -> None:
    files = sorted((ROOT / "tests").rglob("*.py"))
    fixtures = {function.name for file in files for function in functions(file) if is_fixture(function)}
    untyped = [
        f"{file.relative_to(ROOT)}:{parameter.lineno}: {parameter.arg}"
        for file in files
        for function in functions(file)
        if is_fixture(function) or function.name.startswith("test_")
        for parameter in function.args.args
        if parameter.arg in fixtures and parameter.annotation is not None and ast.unparse(parameter.annotation) == "Any"
    ]
    assert untyped == []
