"""Stripe's objects as its published types describe them: what a value lacks, has too much, or has of another type.

The installed SDK tells the types. A field that it does not mark Optional is always there; of those that may be null,
`always_there.txt` says which are. Where another object is referred to, its id or the object stands.
"""

import ast
import importlib
import inspect
import types
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, ForwardRef, Literal, Union, get_args, get_origin

from stripe._list_object import ListObject
from stripe._object_classes import OBJECT_CLASSES
from stripe._stripe_object import StripeObject, UntypedStripeObject

Found = Iterator[str]

KINDS = (
    "billing.meter",
    "billing_portal.configuration",
    "billing_portal.session",
    "charge",
    "checkout.session",
    "coupon",
    "credit_note",
    "customer",
    "customer_balance_transaction",
    "discount",
    "dispute",
    "event",
    "invoice",
    "invoice_payment",
    "invoiceitem",
    "payment_intent",
    "payment_method",
    "price",
    "product",
    "promotion_code",
    "refund",
    "subscription",
    "subscription_schedule",
    "webhook_endpoint",
)
"""That the account keeps; items and lines are within others."""


def faults_of(value: Mapping[str, Any]) -> list[str]:
    """What is wrong with an object of the API, each with its path."""
    kind = str(value.get("object"))
    if value.get("deleted"):
        return []
    if kind not in OBJECT_CLASSES:
        return [f"{kind}: no such kind"]
    return [*_object(value, class_of(kind), kind), *_absent(value, kind)]


def class_of(kind: str) -> Any:
    module, name = OBJECT_CLASSES[kind]
    return getattr(importlib.import_module(module), name)


@cache
def always_there() -> Mapping[str, tuple[str, ...]]:
    text = "".join(
        line if line.startswith(" ") else f"\n{line}"
        for line in (Path(__file__).parent / "always_there.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    return {
        path: tuple(names.split()) for path, _, names in (each.partition(": ") for each in text.split("\n") if each)
    }


def _absent(value: Any, at: str) -> Found:
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict):
            continue
        for name in always_there().get(at, ()):
            if name not in each:
                yield f"{at}.{name}: missing, and may be null only"
        for name, inner in each.items():
            if f"{at}.{name}" in always_there():
                yield from _absent(inner, f"{at}.{name}")
            else:
                yield from _absent_below(inner)


def _absent_below(value: Any) -> Found:
    """Other objects in it, each by its own kind."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict) and each.get("object") == "list":
            yield from _absent_below(each["data"])
        elif isinstance(each, dict) and not each.get("deleted") and str(each.get("object")) in OBJECT_CLASSES:
            yield from _absent(each, each["object"])


@cache
def fields(cls: Any) -> Mapping[str, Any]:
    """By their names in JSON."""
    members = {}
    for base in reversed(cls.__mro__):
        if base is not StripeObject and issubclass(base, StripeObject):
            members.update({name: _resolved(hint, base.__module__) for name, hint in base.__annotations__.items()})
    renamed = {python: wire for wire, python in getattr(cls, "_field_remappings", {}).items()}
    return {
        renamed.get(name, name): hint
        for name, hint in members.items()
        if get_origin(hint) is not ClassVar and not name.startswith("_")
    }


@cache
def _names(module: str) -> Mapping[str, Any]:
    """A module's names, with those that it imports for its annotations only."""
    names = dict(vars(importlib.import_module(module)))
    for node in ast.walk(ast.parse(inspect.getsource(importlib.import_module(module)))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("stripe.params"):
            for each in node.names:
                names.setdefault(each.asname or each.name, getattr(importlib.import_module(node.module), each.name))
    return names


def _resolved(hint: Any, module: str) -> Any:
    if isinstance(hint, str | ForwardRef):
        text = hint if isinstance(hint, str) else hint.__forward_arg__
        return _resolved(eval(text, dict(_names(module))), module)  # noqa: S307  the SDK's own source
    origin, args = get_origin(hint), get_args(hint)
    if origin in (None, Literal, ClassVar):
        return hint
    inner = tuple(_resolved(each, module) for each in args)
    return Union[inner] if origin in (Union, types.UnionType) else origin[inner]  # noqa: UP007 - made from values


def _object(value: Any, cls: Any, at: str) -> Found:
    if not isinstance(value, dict):
        yield f"{at}: {value!r} is no object"
        return
    known = fields(cls)
    for name in value:
        if name not in known:
            yield f"{at}.{name}: unknown"
    for name, hint in known.items():
        if name in value:
            yield from _value(value[name], hint, f"{at}.{name}")
        elif not _optional(hint):
            yield f"{at}.{name}: missing"


def _optional(hint: Any) -> bool:
    return hint is Any or types.NoneType in get_args(hint)


def _value(value: Any, hint: Any, at: str) -> Found:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Union:
        yield from _one_of(value, args, at)
    elif origin is Literal:
        if value not in args:
            yield f"{at}: {value!r} is none of {args}"
    elif origin is list:
        if not isinstance(value, list):
            yield f"{at}: {value!r} is no list"
            return
        for number, each in enumerate(value):
            yield from _value(each, args[0], f"{at}[{number}]")
    elif origin is ListObject:
        yield from _list(value, args[0], at)
    elif origin is UntypedStripeObject:
        if not isinstance(value, dict):
            yield f"{at}: {value!r} is no hash"
            return
        for key, each in value.items():
            yield from _value(each, args[0], f"{at}.{key}")
    elif inspect.isclass(hint) and issubclass(hint, StripeObject):
        yield from _object(value, hint, at)
    elif not _is(value, hint):
        yield f"{at}: {value!r} is no {getattr(hint, '__name__', hint)}"


def _one_of(value: Any, hints: tuple[Any, ...], at: str) -> Found:
    if value is None:
        if types.NoneType not in hints:
            yield f"{at}: null"
        return
    if any(get_origin(hint) is Literal for hint in hints):  # with str for words that are newer than the SDK
        hints = tuple(hint for hint in hints if hint is not str)
    tried = [list(_value(value, hint, at)) for hint in hints if hint is not types.NoneType]
    # What is nearest is told: an object of the right kind that lacks a field, not that it is no text.
    yield from min(tried, key=lambda faults: (bool(faults), any(" is no" in each for each in faults), len(faults)))


def _list(value: Any, of: Any, at: str) -> Found:
    if not isinstance(value, dict) or value.get("object") != "list":
        yield f"{at}: {value!r} is no list"
        return
    for name, kind in (("has_more", bool), ("url", str), ("data", list)):
        if not isinstance(value.get(name), kind):
            yield f"{at}.{name}: missing"
    for name in value.keys() - {"object", "has_more", "url", "data", "total_count"}:
        yield f"{at}.{name}: unknown"
    for number, each in enumerate(value.get("data") or []):
        yield from _value(each, of, f"{at}[{number}]")


def _is(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if hint is Decimal:
        return isinstance(value, str)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
