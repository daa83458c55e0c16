"""What plain Python allows and compiled modules do not survive."""

import ast
from collections.abc import Iterator
from importlib import import_module
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


@pytest.mark.parametrize("module", HOT)
def test_no_module_reads_its_own_names(module: str) -> None:
    """A compiled module sees none by `vars()`, `locals()` or `globals()`."""
    source = Path(__file__).parents[2] / f"{module.replace('.', '/')}.py"
    calls = [node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Call) and not node.args]
    named = [node.func.id for node in calls if isinstance(node.func, ast.Name)]
    assert not {"vars", "locals", "globals"} & set(named)


def overrides(module: str) -> list[str]:
    """What exceptions of the module do otherwise than one that they are made of."""
    kinds = [kind for kind in vars(import_module(module)).values() if isinstance(kind, type)]
    return [
        f"{kind.__name__}.{name}"
        for kind in kinds
        if issubclass(kind, Exception) and kind.__module__ == module
        for name, value in vars(kind).items()
        if not name.startswith("__") and (callable(value) or isinstance(value, property))
        if any(name in vars(base) for base in kind.__mro__[1:] if base.__module__ in HOT)
    ]


@pytest.mark.parametrize("module", HOT)
def test_no_exception_overrides_what_another_one_does(module: str) -> None:
    """mypyc gives exceptions no table of methods, and looks there as soon as one is overridden: the process crashes.
    An attribute can differ."""
    assert overrides(module) == []


def test_a_shared_name_is_seen() -> None:
    assert list(shared_names("try: ...\nexcept KeyError as e: ...\nexcept OSError as e: ...\n")) == [(3, "e")]


MACROS = {"_unix", "_linux", "_amd64", "_x86_64", "_i386"}
"""With the underscore that mypyc puts in front, C compilers predefine these."""


@pytest.mark.parametrize("module", HOT)
def test_no_attribute_is_a_macro_of_the_compiler(module: str) -> None:
    source = Path(__file__).parents[2] / f"{module.replace('.', '/')}.py"
    assert not MACROS & {
        node.attr for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Attribute)
    }
