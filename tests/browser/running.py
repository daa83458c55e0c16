"""The console in a real browser: an OpenID provider, a control plane and Chromium, each a process of its own."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from devstack import oidc_process
from devstack.ports import free_port
from tests.control.plane import ADMIN_TOKEN
from tests.control.running import answers, command
from tests.directory import CLIENT, written

WAIT_MS = 60_000
START_SECONDS = 180  # of a control plane, on a machine that does much else
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""Of the system, the first that there is. One without a window of its own takes half of the time."""
NEEDED = "needs Chromium: apt-get install chromium-headless-shell, or playwright install chromium"
SESSION_COOKIE = "__Host-quotagate"
ROLES = {"quotagate-admins": "admin", "quotagate-viewers": "viewer"}


@dataclass(frozen=True)
class Console:
    url: str
    directory: Path
    """Whom the provider knows; it is read again for each request."""
    log: Path
    admin: httpx.Client

    @property
    def back(self) -> str:
        return f"{self.url}/console/signed-in/example"

    def link(self, role: str = "admin") -> str:
        made = self.admin.post("/v1/console-links", json={"role": role})
        assert made.status_code == 201, made.text
        return str(made.json()["url"])

    def sessions(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self.admin.get("/v1/sessions").json()["sessions"]
        return listed


@contextmanager
def console_running(
    folder: Path, postgres_dsn: str, redis_url: str, more: Mapping[str, Any] | None = None, /, **provider: Any
) -> Iterator[Console]:
    """`provider`: settings of the OpenID provider that are not as usual. `more`: of the control plane."""
    port, provider_port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    directory = written(folder / "directory.json", f"{url}/console/signed-in/example")
    known = {
        "name": "example",
        "label": "Example SSO",
        "issuer": oidc_process.url(provider_port),
        "roles_claim": "realm_access.roles",
        "roles": ROLES,
        **CLIENT,
        **provider,
    }
    customers = {"label": "Example SSO", "organization_claim": "org_id", "role_claim": "org_role"}
    settings = {
        "postgres": {"dsn": postgres_dsn},
        "redis": {"url": redis_url, "timeout_seconds": 60},
        "admin_token": ADMIN_TOKEN,
        "signin": {"public_url": url, "providers": [known]},
        "portal": {"sign_in": {**customers, "issuer": known["issuer"], **CLIENT}},
        **(more or {}),
    }
    file, log = folder / "control.yaml", folder / "control.log"
    file.write_text(json.dumps(settings))
    with (
        oidc_process.running(provider_port, directory, folder),
        _control_plane(port, file, log),
        httpx.Client(base_url=url, headers={"authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=60) as admin,
    ):
        yield Console(url, directory, log, admin)


@contextmanager
def _control_plane(port: int, file: Path, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command(port, file), env=dict(os.environ), stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            deadline = time.monotonic() + START_SECONDS
            while not answers(client):
                assert time.monotonic() < deadline, log.read_text()
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


# One for each module: while Playwright runs, its event loop would be in the way of tests that have one of their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = chromium(playwright)
        if running is None:
            pytest.skip(NEEDED)
        yield running
        running.close()


def chromium(playwright: Playwright) -> Browser | None:
    """The system's, or Playwright's own; None where there is neither."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    path = found or playwright.chromium.executable_path
    if not Path(path).exists():
        return None
    # A container has no sandbox for root, and little shared memory.
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])


def new_page(browser: Browser, **options: Any) -> Page:
    """Of a browser that nobody has used."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(WAIT_MS)
    return page


def sign_in(page: Page, console: Console, person: dict[str, Any], path: str = "/console/account") -> None:
    """As a person does it, up to the answer of the console."""
    page.goto(f"{console.url}{path}")
    page.get_by_role("link", name="Continue with Example SSO").click()
    page.get_by_label("User name").fill(person["username"])
    page.get_by_label("Password").fill(person["password"])
    page.get_by_role("button", name="Sign in").click()


def call(page: Page, method: str, path: str, *, token: str | None = None, body: str | None = None) -> int:
    """The status that a script of a page of ours gets."""
    headers = {"content-type": "application/json"} if body is not None else {}
    if token is not None:
        headers["x-csrf-token"] = token
    status: int = page.evaluate(
        "([method, path, headers, body]) => fetch(path, {method, headers, body}).then(answer => answer.status)",
        [method, path, headers, body],
    )
    return status


def page_token(page: Page) -> str:
    return str(page.locator('meta[name="csrf-token"]').get_attribute("content"))


def session_of(page: Page) -> str:
    """What the cookie of the session holds."""
    [value] = [cookie["value"] for cookie in page.context.cookies() if cookie["name"] == SESSION_COOKIE]
    return str(value)


def opens(console: Console, session: str) -> bool:
    """Whether the session lets somebody in who has stolen it."""
    answer = httpx.get(f"{console.url}/console", headers={"cookie": f"{SESSION_COOKIE}={session}"})
    assert answer.status_code in (200, 303)
    return answer.status_code == 200


@contextmanager
def page_elsewhere(html: str) -> Iterator[int]:
    """A web server of somebody else, which serves this page; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(BrokenPipeError):
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(html.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name that the base class gives it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
