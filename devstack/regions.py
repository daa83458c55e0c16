"""Three regions on one machine: each has a Valkey, a gateway and a control plane. All share one PostgreSQL."""

import re
from collections.abc import Mapping
from typing import Final

PARTS: Final[Mapping[str, float]] = {"us": 0.5, "eu": 0.3, "ap": 0.2}
"""Of rates and limits of concurrent requests, by region. Their order is that of their numbers."""
FIRST, *_others = PARTS
OTHERS: Final = tuple(_others)
_OWN: Final = re.compile(r"^region: null.*\nregions: \{\}.*\n", re.MULTILINE)


def server_of(region: str) -> str:
    """The name under which a data directory remembers the port of its Valkey."""
    return "valkey" if region == FIRST else f"valkey-{region}"


def with_region(settings: str, region: str) -> str:
    """A control plane's settings, which works for that region. All else stays as it is written, comments too."""
    regions = ", ".join(
        f"{name}: {{number: {number}, part: {part}}}" for number, (name, part) in enumerate(PARTS.items())
    )
    changed, count = _OWN.subn(f"region: {region}\nregions: {{{regions}}}\n", settings)
    assert count == 1  # noqa: S101  the settings are packaged, and have both
    return changed
