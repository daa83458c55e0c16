"""Settings of a test's gateway, as the YAML file has them."""

from collections.abc import Mapping
from typing import Any

# What Redis has for a reply: with the times of production, a slow machine would be a slow Redis.
PATIENT = {"timeout_ms": 60_000, "budget_ms": 60_000}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for name, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = merged(result[name], value) if nested else value
    return result
