"""Requests to a collector, tried again for a while. It blocks, so a thread of its own calls it.

What is sent again, and what of it the environment says, is as OpenTelemetry's specifications of the protocol and of
its exporters have it.
"""

import gzip
import os
import random
import ssl
import zlib
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from itertools import count
from threading import Event
from time import monotonic, time
from typing import Final
from urllib.parse import unquote

import httpx

from common.otlp.settings import Collector, Signal
from common.settings_file import SettingsError

EXPORT_SECONDS: Final = 10.0  # for one request, with its repetitions
ATTEMPT_SECONDS_MIN: Final = 0.1
AGAIN: Final = frozenset((429, 502, 503, 504))
"""Answers after which the same is sent again; any other refusal is final."""
_COMPRESSED: Final[Mapping[str, Callable[[bytes], bytes]]] = {"gzip": gzip.compress, "deflate": zlib.compress}


class Refused(Exception):
    """The collector does not take it."""


class Sender:
    """Of one signal of a process."""

    def __init__(self, settings: Collector, signal: Signal, closing: Event) -> None:
        """Once `closing` is set, nothing is tried again. Raises SettingsError for what the environment says of TLS."""
        special = getattr(settings.signals, signal)
        given = {**settings.headers, **special.headers}
        self._url = special.endpoint or f"{settings.endpoint}/v1/{signal}"
        self._closing = closing
        self._compression = (_variable(signal, "COMPRESSION") or "none").strip().lower()
        headers = {
            **_headers(_variable(signal, "HEADERS") or ""),
            **{name.lower(): value.get_secret_value() for name, value in given.items()},
            "content-type": "application/x-protobuf",
        }
        if self._compression in _COMPRESSED:
            headers["content-encoding"] = self._compression
        self._client = httpx.Client(headers=headers, verify=_trusted(signal))

    def send(self, body: bytes) -> None:
        """Returns when the collector has it. Raises Refused."""
        if (compress := _COMPRESSED.get(self._compression)) is not None:
            body = compress(body)
        deadline = monotonic() + EXPORT_SECONDS
        for attempt in count():
            wait_seconds: float | None = 0.0
            try:
                seconds = max(deadline - monotonic(), ATTEMPT_SECONDS_MIN)
                answer = self._client.post(self._url, content=body, timeout=seconds)
            except httpx.TransportError as e:
                reason = str(e) or type(e).__name__
                if attempt:  # a connection that was kept may just have been closed: once it is tried again at once
                    wait_seconds = None
            except httpx.HTTPError as e:
                raise Refused(str(e)) from e
            else:
                if answer.is_success:
                    return
                reason = f"it answers with {answer.status_code}"
                if answer.status_code not in AGAIN:
                    raise Refused(reason)
                wait_seconds = _retry_after(answer.headers.get("retry-after"))
            if wait_seconds is None:
                wait_seconds = 2 ** max(attempt - 1, 0) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
            if monotonic() + wait_seconds > deadline or self._closing.wait(wait_seconds):
                raise Refused(reason)

    def close(self) -> None:
        self._client.close()


def _variable(signal: Signal, name: str) -> str | None:
    """Of the environment: that of the signal, or else that of all."""
    environ = os.environ
    return environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}") or environ.get(f"OTEL_EXPORTER_OTLP_{name}")


def _headers(text: str) -> dict[str, str]:
    """`name=value,…`, percent-encoded."""
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {unquote(name).strip().lower(): unquote(value).strip() for name, _, value in pairs}


def _trusted(signal: Signal) -> ssl.SSLContext | bool:
    authorities, certificate = _variable(signal, "CERTIFICATE"), _variable(signal, "CLIENT_CERTIFICATE")
    if authorities is None and certificate is None:
        return True
    try:
        context = ssl.create_default_context(cafile=authorities)
        if certificate is not None:
            context.load_cert_chain(certificate, _variable(signal, "CLIENT_KEY"))
    except OSError as e:
        raise SettingsError(f"OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE or _CLIENT_KEY: {e}") from e
    return context


def _retry_after(value: str | None) -> float | None:
    """In seconds; None where it says nothing that can be read."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(parsedate_to_datetime(value).timestamp() - time(), 0.0)
    except ValueError:
        return None
