"""What plain Python allows and compiled modules do not survive."""

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from compiled.modules import HOT


def shared_names(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of handlers of one `try` that give another class the same name. Classes of other packages
    (`httptools.…`) are none: mypyc reads no types of theirs."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Try):
            named = [each for each in node.handlers if each.name and not isinstance(each.type, ast.Attribute)]
            for one, other in pairwise(sorted(named, key=lambda handler: str(handler.name))):
                if one.name == other.name:
                    yield other.lineno, str(other.name)


@pytest.mark.parametrize("module", HOT)
def test_handlers_of_one_try_have_names_of_their_own(module: str) -> None:
    """mypyc gives a variable one type, the first handler's: the second one would raise TypeError when it is entered."""
    source = Path(__file__).parents[2] / f"{module.replace('.', '/')}.py"
    assert list(shared_names(source.read_text())) == []


def called_protocols(source: str) -> Iterator[str]:
    """Protocols that are called as functions are."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases):
            yield from (node.name for each in node.body if getattr(each, "name", "") == "__call__")


@pytest.mark.parametrize("module", HOT)
def test_no_protocol_stands_for_a_function(module: str) -> None:
    """mypyc calls it as a class of its own, which a function or a bound method is not: the process crashes. A
    `Callable` does the same."""
    source = Path(__file__).parents[2] / f"{module.replace('.', '/')}.py"
    assert list(called_protocols(source.read_text())) == []


def test_a_called_protocol_is_seen() -> None:
    assert list(called_protocols("class Then(Protocol):\n    def __call__(self) -> None: ...\n")) == ["Then"]


def test_a_shared_name_is_seen() -> None:
    assert list(shared_names("try: ...\nexcept KeyError as e: ...\nexcept OSError as e: ...\n")) == [(3, "e")]
