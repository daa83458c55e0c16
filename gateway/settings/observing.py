"""What operators see of the gateway: `access_log`, `management`, `trace`, `telemetry`."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from common.otlp.settings import Collector
from common.settings_file import SettingsModel
from gateway.settings.values import Port, Text


class AccessLogSettings(SettingsModel):
    """One JSON line for each finished exchange."""

    enabled: bool = True
    path: Path | None = None
    """A file, opened again on SIGHUP; null: standard output."""
    query: bool = False
    """Whether the query is logged as well: it may hold what must not be kept."""


class Refusals(SettingsModel):
    """Refused requests that are kept for those who ask why: GET /v1/decisions of the control plane. All are counted."""

    per_second: Annotated[int, Field(ge=0, le=1000)] = 100
    """Of one worker, in one second; 0 keeps none."""
    per_organization: Annotated[int, Field(ge=1, le=1000)] = 20
    """Of them, of one organization."""


class Management(SettingsModel):
    """Where metrics of all workers are read: /metrics."""

    host: Text = "127.0.0.1"
    port: Port | None = None
    """null: nowhere; 0 takes a free one."""


class Trace(SettingsModel):
    """W3C Trace Context. A client's traceparent goes on unchanged, unless its request is recorded (`telemetry`)."""

    create: bool = False
    """Whether a request without a valid traceparent gets one. An upstream that begins its own traces decides itself
    which are sampled; this takes the decision from it."""
    sampled: bool = True
    """The flag of those that are made: most tracers record a trace only if it is set. Where `telemetry` records
    requests, the flag is whether this one is."""


SERVICE: Final = "quotagate-gateway"
"""service.name, unless the settings say another."""


class Telemetry(Collector):
    """Requests are recorded as spans: those whose traceparent has the flag `sampled`, and a share of those that bring
    none. An upstream gets a traceparent with the gateway's span as its parent."""

    access_log: bool = False
    """Whether lines of the access log are sent, too. Each takes nine tenths of the work for a request."""
