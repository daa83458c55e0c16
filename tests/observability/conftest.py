"""A real installation, what is scraped of it while all is well, and a gateway that ails."""

import subprocess
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.authority import Authority
from tests.observability.promtool import firing
from tests.observability.samples import Scrape
from tests.observability.stack import Gateway, Installation, installed

CLEAN_ATTEMPTS = 3  # a machine that is busy with other things is no clean run


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_dsn: str,
    application_login: str,
    sample_upstream: str,
    authority: Authority,
) -> Iterator[Installation]:
    directory = tmp_path_factory.mktemp("alerts")
    application = f"postgresql://{application_login}@{postgres_dsn.partition('@')[2]}"
    certificate = authority.issue("client.example", days=90)
    shown = {"upstreams": {"shown": {"url": "https://127.0.0.1:1", "tls": {"cert_file": str(certificate)}}}}
    with (
        installed(directory, postgres_dsn, application, sample_upstream) as installation,
        installation.gateway("gateway", shown) as gateway,
        installation.watching(gateway),
    ):
        installation.gateway_url, installation.org = gateway.url, installation.entitle(10_000_000)
        installation.certificate = certificate
        installation.sign_up()
        yield installation


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """A twentieth of it is free. None where nothing may be mounted."""
    directory = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    (directory / "other").write_bytes(b"x" * 1_990_000)
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture(scope="module")
def ailing(
    installation: Installation, small_disk: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway whose issuer is gone, whose log is full and whose journal nearly is, and that remembers little. It is
    watched by those tests only that are about it."""
    key_set = httpx.get(f"{installation.control_url}/.well-known/jwks.json").content

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(key_set)))
            self.end_headers()
            self.wfile.write(key_set)

    issuer = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=issuer.serve_forever, daemon=True).start()
    issuers = [dict(each) for each in installation.settings["auth"]["issuers"]]
    issuers[1]["jwks"] = f"http://127.0.0.1:{issuer.server_address[1]}/"
    journal = small_disk or tmp_path_factory.mktemp("journal")
    changes = {
        "auth": {"issuers": issuers},
        "redis": {"receipts_max": 1000},
        "access_log": {"path": "/dev/full"},
        "degraded": {"journal": str(journal / "journal")},
        "routes": [{"path": "/", "upstream": "sample", "degraded": "allow"}],
    }
    with installation.gateway("ailing", changes) as gateway:
        assert installation.ask(1, at=gateway.url) == [200]
        issuer.shutdown()
        issuer.server_close()
        yield gateway


@pytest.fixture(scope="module")
def clean(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Scrape]:
    """What is scraped while all is well, and clients use all of it."""
    installation.shows("quotagate_control_reconcile_rounds_total", lambda rounds: rounds > 0)
    for attempt in range(CLEAN_ATTEMPTS):
        scrapes = [installation.scrape()]
        for round_ in range(2):
            used(installation, paused=round_ == 0)
            scrapes.append(installation.scrape())
        if not firing(tmp_path_factory.mktemp(f"clean-{attempt}"), scrapes, [], (), 0):
            break
    return scrapes


def used(installation: Installation, *, paused: bool) -> None:
    """Clients ask, report and authenticate, and a subscription changes, until all of it is in the metrics."""
    enforced = installation.value("quotagate_control_enforcement_seconds_count") or 0
    taken = installation.value("quotagate_take_seconds_count") or 0
    assert set(installation.ask(100)) == {200}
    assert set(installation.report(30)) == {200}
    assert set(installation.issue(30)) == {201}
    installation.change_subscription(paused=paused)
    installation.shows("quotagate_control_enforcement_seconds_count", lambda count: count > enforced)
    installation.shows("quotagate_take_seconds_count", lambda count: count >= taken + 100)
