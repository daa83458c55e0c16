"""Where telemetry goes, and what of it: the block `telemetry` of both planes' settings."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from common.settings_file import Location, SettingsConflict, SettingsModel
from common.urls import split_url

Signal = Literal["traces", "metrics", "logs"]


def _url(text: str) -> str:
    split_url(text, ("http", "https"))
    return text.rstrip("/")


Url = Annotated[str, AfterValidator(_url)]
Headers = dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")], SecretStr]


class OfSignal(SettingsModel):
    """What is another for one signal."""

    endpoint: Url | None = None
    """Where its requests go, with the whole path: https://logs.example.com/v1/logs. null: `endpoint` of all, followed
    by /v1/ and the signal's name."""
    headers: Headers = Field(default_factory=dict)
    """Beside those of all; one of the same name is instead of it."""


class Signals(SettingsModel):
    """What is another for one signal than for all."""

    traces: OfSignal = OfSignal()
    metrics: OfSignal = OfSignal()
    logs: OfSignal = OfSignal()


class Collector(SettingsModel):
    """Where spans, metrics and lines of the log go by OTLP over HTTP."""

    endpoint: Url | None = None
    """Of the collector, without a signal's path: https://otlp.example.com, http://127.0.0.1:4318. null: nowhere."""
    headers: Headers = Field(default_factory=dict)
    """Of each request to it, such as its key."""
    signals: Signals = Signals()
    ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share that is recorded of what has no parent: of 100 requests, 0.01 records one."""
    follow_clients: bool = True
    """Whether a client's flag decides. A client that is not yours can have all of its requests recorded; with false the
    ratio decides on each, and those that are recorded belong to the client's trace."""
    metrics: bool = False
    """Whether all metrics are sent, under the names that Prometheus reads them by."""
    metrics_seconds: Annotated[float, Field(ge=1, le=3600)] = 60
    """From one report of the metrics to the next."""
    logs: bool = False
    """Whether lines of the log are sent, beside standard error."""
    service: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    """service.name; null: quotagate-gateway, quotagate-control."""
    attributes: dict[str, str] = Field(default_factory=dict)
    """Of the resource, such as deployment.environment.name."""

    @property
    def records(self) -> bool:
        """Whether there may be spans at all."""
        return self.endpoint is not None and (self.ratio > 0 or self.follow_clients)

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if self.endpoint is None and (faults := list(self._without_endpoint())):
            raise SettingsConflict(faults)
        return self

    def _without_endpoint(self) -> Iterator[tuple[Location, str]]:
        for name, wanted in (("metrics", self.metrics), ("logs", self.logs)):
            if wanted:
                yield (name,), "needs a collector: set endpoint"
