"""The reference client, as a site runs it: processes and threads that share a directory, and a server that fails."""

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from control.settings.control_plane import Settings
from devstack import postgres
from examples import site_client
from examples.site_client import ActivateAgain, ActivatedSite, Refused, Unreachable
from tests.control.access.issuing.rig import ISSUER, MASTER_KEY
from tests.control.plane import settings
from tests.control.running import started

__all__ = ["settings"]

CLIENT = Path(site_client.__file__)


@pytest.fixture
def control(settings: Settings, tmp_path: Path) -> Iterator[httpx.Client]:
    environ = {"QUOTAGATE_MASTER_KEY": MASTER_KEY, "QUOTAGATE_ISSUER": ISSUER}
    with started(settings, tmp_path / "control.log", environ) as (_, client):
        yield client


def code_of(control: httpx.Client, **content: Any) -> str:
    org = f"org-{uuid4().hex[:12]}"
    assert control.put(f"/v1/organizations/{org}", json={"name": org}).status_code == 201
    answer = control.post(f"/v1/organizations/{org}/activation-codes", json=content)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["code"])


def site_in(directory: Path, control: httpx.Client | str, domain: str = "https://shop.example.com") -> ActivatedSite:
    return ActivatedSite(control if isinstance(control, str) else str(control.base_url), directory, domain)


def generation(directory: Path) -> int:
    tokens = json.loads((directory / "tokens.json").read_text())
    return int(tokens["refresh_token"].split("_")[2])


def make_due(directory: Path) -> None:
    """Nearly all of the token's life is over."""
    path = directory / "tokens.json"
    tokens = json.loads(path.read_text())
    tokens["received_at"] -= 1000
    tokens["expires_at"] = time.time() + 60
    path.write_text(json.dumps(tokens))


def test_a_site_is_activated_refreshes_in_time_and_gives_its_seat_back(control: httpx.Client, tmp_path: Path) -> None:
    code, directory = code_of(control), tmp_path / "site"
    site = site_in(directory, control)
    with pytest.raises(ActivateAgain):
        site.access_token()
    site.activate(code)
    token = site.access_token()
    assert site.access_token() == token
    assert generation(directory) == 1
    make_due(directory)
    assert site.access_token() != token
    assert generation(directory) == 2
    site.release()
    with pytest.raises(ActivateAgain):
        site.access_token()
    with pytest.raises(Refused):
        site.activate("00000-00000-00000-00000-00000")


def test_its_files_are_its_owners_alone_and_hold_no_domain_that_a_replacement_could_break(
    control: httpx.Client, tmp_path: Path
) -> None:
    directory = tmp_path / "site"
    site = site_in(directory, control)
    site.activate(code_of(control))
    site.refresh()
    for name in ("site.key", "tokens.json"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    assert {path.name for path in directory.iterdir()} == {"site.key", "tokens.json", "lock"}
    moved = site_in(directory, control, "https://shop.example.org")
    text = (directory / "tokens.json").read_text()
    (directory / "tokens.json").write_text(text.replace("shop.example.com", "shop.example.org"))
    assert moved.refresh()["domain"] == "shop.example.org"


def test_threads_that_need_a_token_at_once_refresh_once(control: httpx.Client, tmp_path: Path) -> None:
    directory = tmp_path / "site"
    site = site_in(directory, control)
    site.activate(code_of(control))
    make_due(directory)
    with ThreadPoolExecutor(20) as pool:
        tokens = set(pool.map(lambda _: site.access_token(), range(40)))
    assert len(tokens) == 1
    assert generation(directory) == 2


def test_exceptionless_2404_processes_that_need_a_token_at_once_refresh_once(
    control: httpx.Client, tmp_path: Path
) -> None:
    """https://github.com/exceptionless/Exceptionless/issues/2404."""
    directory = tmp_path / "site"
    site_in(directory, control).activate(code_of(control))
    make_due(directory)
    command = [sys.executable, str(CLIENT), "--control", str(control.base_url), "--dir", str(directory)]
    command += ["--domain", "https://shop.example.com", "token"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    tokens = {process.communicate(timeout=120)[0] for process in processes}
    assert len(tokens) == 1
    assert generation(directory) == 2


class LosesReplies(BaseHTTPRequestHandler):
    """A proxy that hands each request on, and as many answers as it likes."""

    upstream = ""
    to_lose = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        answer = httpx.post(self.upstream + self.path, content=body, headers={"content-type": "application/json"})
        if type(self).to_lose > 0:
            type(self).to_lose -= 1
            self.close_connection = True
            return
        self.send_response(answer.status_code)
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  # its name in the base class


@pytest.fixture
def lossy(control: httpx.Client) -> Iterator[str]:
    LosesReplies.upstream, LosesReplies.to_lose = str(control.base_url).rstrip("/"), 0
    with ThreadingHTTPServer(("127.0.0.1", 0), LosesReplies) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_lost_replies_lock_nobody_out_whenever_the_site_asks_again(
    control: httpx.Client, lossy: str, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_client, "TRIES", 1)
    directory, code = tmp_path / "site", code_of(control)
    site = site_in(directory, lossy)
    LosesReplies.to_lose = 1
    with pytest.raises(Unreachable):
        site.activate(code)
    site.activate(code)
    for _ in range(2):
        LosesReplies.to_lose = 1
        with pytest.raises(Unreachable):
            site.refresh()
        # Long after the grace, as far as the control plane can tell: the attempt is what it goes by.
        moved = "UPDATE refresh_family SET rotated_at = rotated_at - interval '30 days'"
        postgres.execute(settings.postgres.dsn.get_secret_value(), moved)
        site.refresh()
    assert generation(directory) == 3


def test_while_the_control_plane_is_away_a_token_is_used_until_it_expires(
    control: httpx.Client, lossy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_client, "TRIES", 1)
    directory = tmp_path / "site"
    site_in(directory, control).activate(code_of(control))
    away = site_in(directory, "http://127.0.0.1:1")
    make_due(directory)
    assert away.access_token().count(".") == 2
    tokens = json.loads((directory / "tokens.json").read_text())
    tokens["expires_at"] = time.time() - 1
    (directory / "tokens.json").write_text(json.dumps(tokens))
    with pytest.raises(Unreachable):
        away.access_token()
    assert site_in(directory, control).access_token().count(".") == 2


def test_the_client_needs_nothing_but_pythons_standard_library(tmp_path: Path) -> None:
    run = [sys.executable, "-I", "-S", str(CLIENT), "--help"]  # -S: nothing that is installed can be imported
    shown = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True, env={**os.environ}).stdout
    assert "activate" in shown
