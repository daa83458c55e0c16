"""A request's parameters: from Stripe's form encoding to values, checked against the installed SDK's own types.

`stripe.params` describes every parameter of every call as TypedDicts. A call that the SDK's types forbid is refused as
Stripe would refuse it.
"""

import types
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints

import stripe
from stripe import _request_options as request_options

from devstack.stripe.account import RequestRefused

EVERYWHERE = {"expand": list[str]}

TEXT_MAX = 5000
LENGTHS: Mapping[str, Mapping[str, int]] = {
    "CouponCreateParams": {"id": 255, "name": 40},
    "CustomerBalanceTransactionCreateParams": {"description": 350},
    "CustomerCreateParams": {"email": 512, "name": 256, "phone": 20},
    "CustomerUpdateParams": {"email": 512, "name": 256, "phone": 20},
    "PriceCreateParams": {"lookup_key": 200},
    "PriceUpdateParams": {"lookup_key": 200},
    "ProductCreateParams": {"id": 255, "name": 250, "statement_descriptor": 22},
    "ProductUpdateParams": {"name": 250, "statement_descriptor": 22},
    "PromotionCodeCreateParams": {"code": 500},
    "SubscriptionCreateParams": {"description": 500},
    "SubscriptionUpdateParams": {"description": 500},
    "billing.MeterCreateParams": {"display_name": 250, "event_name": 100},
    "billing.MeterEventCreateParams": {"event_name": 100, "identifier": 100},
    "checkout.SessionCreateParams": {"client_reference_id": 200, "customer_email": 800},
}
"""How many characters Stripe takes, where its documentation says so; of other texts it takes TEXT_MAX."""
METADATA_KEYS_MAX, METADATA_KEY_MAX, METADATA_VALUE_MAX = 50, 40, 500  # https://docs.stripe.com/api/metadata
IDEMPOTENCY_KEY_MAX = 255


def nested(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """`items[0][price]=p` as {"items": [{"price": "p"}]}. Raises RequestRefused."""
    tree: dict[str, Any] = {}
    for name, value in pairs:
        steps = [step.rstrip("]") for step in name.split("[")]
        at: Any = tree
        for step in steps[:-1]:
            at = at.setdefault(step or str(len(at)), {})
            if not isinstance(at, dict):
                raise RequestRefused(f"Invalid form: {name}", param=name)
        at[steps[-1] or str(len(at))] = value
    return {name: _listed(value) for name, value in tree.items()}


def checked(params: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The values of `params` in the types of `stripe.params.<name>`. Raises RequestRefused."""
    hints, values = _hints(name), {}
    for field, value in params.items():
        if field not in hints:
            raise RequestRefused(f"Received unknown parameter: {field}", code="parameter_unknown", param=field)
        values[field] = _typed(value, hints[field], field)
    lengths = LENGTHS.get(name, {})
    for field, value in values.items():
        _check_length(value, field, lengths.get(field, TEXT_MAX))
    for field in _required(name):
        if field not in values:
            raise RequestRefused(f"Missing required param: {field}.", code="parameter_missing", param=field)
    return values


def _check_length(value: Any, at: str, characters_max: int) -> None:
    """Raises RequestRefused for what is longer than Stripe takes."""
    if isinstance(value, str) and len(value) > characters_max:
        message = f"Invalid string: {value[:20]}...; must be at most {characters_max} characters"
        raise RequestRefused(message, code="parameter_invalid_string_length", param=at)
    if isinstance(value, list):
        for number, each in enumerate(value):
            _check_length(each, f"{at}[{number}]", TEXT_MAX)
    if isinstance(value, dict):
        metadata = at == "metadata" or at.endswith("[metadata]")
        if metadata and len(value) > METADATA_KEYS_MAX:
            raise RequestRefused(f"Metadata can have at most {METADATA_KEYS_MAX} keys.", param=at)
        for key, each in value.items():
            if metadata and (len(key) > METADATA_KEY_MAX or "[" in key or "]" in key):
                raise RequestRefused(
                    f"Metadata keys have at most {METADATA_KEY_MAX} characters, and no brackets.", param=at
                )
            _check_length(each, f"{at}[{key}]", METADATA_VALUE_MAX if metadata else TEXT_MAX)


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {key: _listed(each) for key, each in value.items()}
    if inner and all(key.isdigit() for key in inner):
        return [inner[key] for key in sorted(inner, key=int)]
    return inner


def _class(name: str) -> Any:
    module_or_class: Any = stripe.params
    for step in name.split("."):
        module_or_class = getattr(module_or_class, step)
    return module_or_class


@cache
def _hints(name: str) -> dict[str, Any]:
    return {**_resolved(_class(name)), **EVERYWHERE}


@cache
def _resolved(cls: Any) -> dict[str, Any]:
    local = {**vars(request_options), "Mapping": Mapping, "StripeContext": stripe.StripeContext}
    return get_type_hints(cls, localns=local)


@cache
def _required(name: str) -> frozenset[str]:
    names: frozenset[str] = _class(name).__required_keys__
    return names


def _typed(value: Any, hint: Any, at: str) -> Any:
    origin = get_origin(hint)
    if origin is NotRequired:
        return _typed(value, get_args(hint)[0], at)
    if origin in (Union, types.UnionType):
        return _either(value, get_args(hint), at)
    if origin is Literal:
        return _literal(value, get_args(hint), at)
    if origin in (list, Sequence):
        if value == "":
            return []
        if not isinstance(value, list):
            raise _wrong(at, "array")
        return [_typed(each, get_args(hint)[0], f"{at}[{number}]") for number, each in enumerate(value)]
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            if isinstance(value, list):  # keys that look like indices
                return {str(number): each for number, each in enumerate(value)}
            raise _wrong(at, "hash")
        return {key: _typed(each, get_args(hint)[1], f"{at}[{key}]") for key, each in value.items()}
    if hasattr(hint, "__required_keys__"):  # the SDK makes them with typing_extensions
        return _fields(value, hint, at)
    return _scalar(value, hint, at)


def _fields(value: Any, hint: Any, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(at, "hash")
    hints, values = _resolved(hint), {}
    for field, inner in value.items():
        if field not in hints:
            raise RequestRefused(
                f"Received unknown parameter: {at}[{field}]", code="parameter_unknown", param=f"{at}[{field}]"
            )
        values[field] = _typed(inner, hints[field], f"{at}[{field}]")
    for field in hint.__required_keys__:
        if field not in values:
            raise RequestRefused(
                f"Missing required param: {at}[{field}].", code="parameter_missing", param=f"{at}[{field}]"
            )
    return values


def _either(value: Any, hints: Sequence[Any], at: str) -> Any:
    words = [hint for hint in hints if get_origin(hint) is Literal and get_args(hint) != ("",)]
    if words and str in hints:  # the SDK lets words pass that are newer than it; Stripe knows all of its own
        hints = [hint for hint in hints if hint is not str]
    refusals = []
    # Text fits everything, so it comes last; "" for unsetting comes first.
    for hint in sorted(hints, key=lambda each: (each is str, each is not types.NoneType)):
        try:
            return _typed(value, hint, at)
        except RequestRefused as e:
            refusals.append(e)
    unknown = [e for e in refusals if e.code in ("parameter_unknown", "parameter_missing")]
    raise (unknown or refusals)[0]


def _literal(value: Any, words: Sequence[Any], at: str) -> Any:
    for word in words:
        if value == word or str(value) == str(word):
            return word
    raise RequestRefused(
        f"Invalid {at}: must be one of {', '.join(map(str, words))}", code="parameter_invalid", param=at
    )


def _scalar(value: Any, hint: Any, at: str) -> Any:
    if hint is Any:
        return value
    if isinstance(value, dict | list):
        raise _wrong(at, getattr(hint, "__name__", str(hint)))
    if hint is types.NoneType:
        if value in ("", None):
            return None
        raise _wrong(at, "empty")
    if hint is bool:
        if value in ("true", "false"):
            return value == "true"
        raise _wrong(at, "boolean")
    if hint in (int, float, Decimal):
        try:
            return hint(value)
        except (ValueError, InvalidOperation):
            raise _wrong(at, "integer" if hint is int else "decimal") from None
    return value


def _wrong(at: str, kind: str) -> RequestRefused:
    return RequestRefused(f"Invalid {kind}: {at}", code=f"parameter_invalid_{kind}", param=at)
