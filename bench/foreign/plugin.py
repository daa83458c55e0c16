"""A pytest plugin for the foreign suite's own environment: where httpbin is, who asks, and what became of each test.

`FOREIGN_URL`: what the suite believes to be httpbin. `FOREIGN_TOKEN`, where set: a bearer token that goes with each
request to that address that has no Authorization of its own; it is added beneath the client, whose tests look at what
the client itself says. `FOREIGN_OUTCOMES`: a file that receives one JSON line for each test.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from httpbin import app
from pytest_httpbin import certs, serve
from urllib3.connection import HTTPConnection

URL = os.environ["FOREIGN_URL"]
TOKEN = os.environ.get("FOREIGN_TOKEN")


@pytest.fixture(scope="session")
def httpbin() -> SimpleNamespace:
    return SimpleNamespace(url=URL)


@pytest.fixture(scope="session")
def httpbin_secure() -> Iterator[Any]:
    """Not through the gateway, which speaks no TLS to clients."""
    with serve.SecureServer(application=app) as server:
        yield server


@pytest.fixture
def httpbin_ca_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority that signed its certificate, as pytest-httpbin names it."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certs.where())


def pytest_configure() -> None:
    if TOKEN is not None:
        _send_along(f"Bearer {TOKEN}", urlsplit(URL).port)


def _send_along(credentials: str, port: int | None) -> None:
    putheader, endheaders = HTTPConnection.putheader, HTTPConnection.endheaders

    def noted(self: Any, name: Any, *values: Any) -> None:
        text = name.decode("latin-1") if isinstance(name, bytes) else name
        if text.lower() == "authorization":
            self.has_authorization = True
        putheader(self, name, *values)

    def completed(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.port == port and not self.__dict__.pop("has_authorization", False):
            putheader(self, "Authorization", credentials)
        endheaders(self, *args, **kwargs)

    HTTPConnection.putheader, HTTPConnection.endheaders = noted, completed


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        why = "" if report.outcome == "passed" else str(report.longrepr)
        line = {"test": report.nodeid, "outcome": report.outcome, "why": why.strip().splitlines()[-1:]}
        with Path(os.environ["FOREIGN_OUTCOMES"]).open("a") as file:
            print(json.dumps(line), file=file)
