"""The docstrings below the attributes of classes, which Python itself does not keep."""

import ast
import inspect
import sys
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path


def docstrings_of(cls: type) -> Mapping[str, str]:
    """By attribute, of those with an annotation in this class itself. Empty for a class that a function made."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return {} if file is None else _by_class(file).get(cls.__qualname__, {})


@cache
def _by_class(file: str) -> Mapping[str, Mapping[str, str]]:
    body = ast.parse(Path(file).read_bytes()).body  # which says its own encoding
    return {node.name: _below_attributes(node) for node in body if isinstance(node, ast.ClassDef)}


def _below_attributes(node: ast.ClassDef) -> Mapping[str, str]:
    return {
        attribute.target.id: inspect.cleandoc(below.value.value)
        for attribute, below in pairwise(node.body)
        if isinstance(attribute, ast.AnnAssign)
        and isinstance(attribute.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }
