"""Kinds of values that several blocks of the settings have."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field

from common.networks import checked_network
from quota.keys import METER_PATTERN

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Milliseconds = Annotated[int, Field(ge=1, le=600_000)]
Port = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Text = Annotated[str, Field(min_length=1)]
Meter = Annotated[str, Field(pattern=METER_PATTERN)]


def _peers(text: str) -> str:
    return text if text == UNIX else checked_network(text)


UNIX: Final = "unix"
"""In place of a network: whoever may open the gateway's Unix socket."""
Peers = Annotated[str, AfterValidator(_peers)]
