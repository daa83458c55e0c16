"""Settings of the gateway that need nothing but what a test says."""

import json
from typing import Any

import pytest

from common.settings_file import SettingsError, parse
from gateway.settings.root import GatewaySettings

SECRET = "a-secret-of-at-least-32-bytes-for-tests"
MINIMAL: dict[str, Any] = {
    "redis": {"url": "redis://127.0.0.1:6379/0"},
    "auth": {"algorithms": ["HS256"], "secret": SECRET, "issuer": "i"},
    "upstreams": {"sample": {"url": "http://127.0.0.1:9000"}},
    "routes": [{"path": "/", "upstream": "sample"}],
}


def read(**changes: Any) -> GatewaySettings:
    return parse("gateway.yaml", json.dumps({**MINIMAL, **changes}), GatewaySettings, {})


def refusal(**changes: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        read(**changes)
    return str(refused.value).partition(": ")[2]
