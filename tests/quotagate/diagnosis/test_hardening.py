"""Rights, ports and files: what somebody who attacks would look for, the doctor finds first."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from control.sql.roles import Hardening
from quotagate.diagnosis.exposure import judge_port, of_control, of_gateway
from quotagate.diagnosis.finding import Level
from quotagate.diagnosis.secrets import OTHERS, key_files_of_control, key_files_of_gateway, of_files, of_settings
from quotagate.diagnosis.stores import Skews, judge_hardening, of_redis
from quotagate.main import app
from tests.authority import Authority
from tests.gateway.address import leading_to
from tests.quotagate.diagnosis.examining import (
    answering,
    control_settings,
    examined,
    gateway_settings,
    secured,
)

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens there
GOOD = Hardening(False, False, False, bootstrap_tokens=0, old_tokens=0, ids_with_address=0, signing_key_days=None)


@pytest.mark.parametrize(
    ("change", "what", "level", "said"),
    [
        ({}, "postgres rights", Level.GOOD, "none beyond its tables"),
        ({"makes_roles": True, "replicates": True}, "postgres rights", Level.WRONG, "CREATEROLE, REPLICATION"),
        ({"bootstrap_tokens": 1}, "admin token", Level.NOTE, "revoke it"),
        ({}, "admin token", Level.GOOD, "is revoked"),
        ({"old_tokens": 2}, "service tokens", Level.WRONG, "2 tokens are older than a year"),
        ({"ids_with_address": 1}, "user ids", Level.WRONG, "1 user has an e-mail address"),
        ({}, "signing key", Level.GOOD, "nothing is issued"),
        ({"signing_key_days": 89.0}, "signing key", Level.GOOD, "89 days old"),
        ({"signing_key_days": 90.5}, "signing key", Level.GOOD, "90 days old"),
        ({"signing_key_days": 92.0}, "signing key", Level.WRONG, "92 days old, and is replaced after 90"),
    ],
)
def test_what_an_attacker_would_look_for_in_the_database(
    change: dict[str, Any], what: str, level: Level, said: str
) -> None:
    [found] = [each for each in judge_hardening(replace(GOOD, **change), 90) if each.what == what]
    assert found.level is level
    assert said in found.detail


@pytest.mark.parametrize(
    ("host", "secured", "own", "level"),
    [
        ("127.0.0.1", None, ["8.8.8.8"], Level.GOOD),
        ("10.0.0.7", None, ["8.8.8.8"], Level.GOOD),
        ("gateway.internal", None, ["8.8.8.8"], Level.GOOD),
        (EVERYWHERE, None, ["10.0.0.7"], Level.NOTE),
        ("::", None, ["10.0.0.7", "2a00:1450::1"], Level.WRONG),
        (EVERYWHERE, None, ["8.8.8.8"], Level.WRONG),
        ("8.8.8.8", None, [], Level.WRONG),
        (EVERYWHERE, "by TLS", ["8.8.8.8"], Level.GOOD),
    ],
)
def test_a_port_without_tls_is_wrong_where_everybody_reaches_it(
    host: str, secured: str | None, own: list[str], level: Level
) -> None:
    assert judge_port("port", host, 80, secured, "who reads it", lambda: own).level is level


def test_the_ports_of_both_settings_are_looked_at(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    open_ = {"listen": {"host": "8.8.8.8"}, "management": {"host": EVERYWHERE, "port": 9464}}
    shown = {"listen": {"host": "8.8.8.8", "tls": {"certificates": [{"cert_file": str(authority.issue("a"))}]}}}
    levels = {
        name: {each.what: each.level for each in of_gateway(gateway_settings(tmp_path, change), lambda: ["10.0.0.7"])}
        for name, change in (("open", open_), ("shown", shown), ("socket", {"listen": {"socket": "/run/x"}}))
    }
    assert levels == {
        "open": {"gateway listener": Level.WRONG, "management port": Level.NOTE},
        "shown": {"gateway listener": Level.GOOD},
        "socket": {},
    }
    provider = {"name": "x", "issuer": "https://login.example.com", "client_id": "c"}
    control = control_settings(tmp_path, {"listen": {"host": "8.8.8.8"}, "signin": {"providers": [provider]}})
    assert {each.what: each.level for each in of_control(control, list)} == {
        "control listener": Level.WRONG,
        "signin.public_url": Level.NOTE,
    }


@pytest.mark.parametrize(
    ("mode", "password", "level"),
    [
        (0o644, "${OF_THE_ENVIRONMENT}", Level.GOOD),
        (0o646, "${OF_THE_ENVIRONMENT}", Level.WRONG),
        (0o640, "in-plain-text", Level.NOTE),
        (0o644, "in-plain-text", Level.WRONG),
    ],
)
def test_settings_with_secrets_are_for_nobody_else_to_read_and_none_for_others_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, password: str, level: Level
) -> None:
    monkeypatch.setenv("OF_THE_ENVIRONMENT", "of-the-environment")
    change = {
        "postgres": {"dsn": f"postgresql://quotagate:{password}@127.0.0.1/x"},
        "admin_token": "${OF_THE_ENVIRONMENT}",
    }
    settings, file = control_settings(tmp_path, change), tmp_path / "control.yaml"
    file.chmod(mode)
    found = of_settings("control settings", file, settings)
    assert found.level is level
    assert "in-plain-text" not in found.detail


def test_files_of_private_keys_are_for_their_owner_and_group(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    served, shown, redis = (authority.issue(name) for name in ("served", "shown", "redis"))
    url = f"rediss://127.0.0.1:1?ssl_certfile={redis}"
    change = {
        "redis": {"url": url},
        "listen": {"tls": {"certificates": [{"cert_file": str(served)}]}},
        "upstreams": {"api": {"url": "https://127.0.0.1:1", "tls": {"cert_file": str(shown)}}},
    }
    files = key_files_of_gateway(gateway_settings(tmp_path, change))
    assert files == [served, shown, redis]
    dsn = f"postgresql://127.0.0.1/x?sslkey={tmp_path}/postgres.key"
    control = control_settings(tmp_path, {"redis": {"url": url}, "postgres": {"dsn": dsn}})
    assert key_files_of_control(control) == [redis, tmp_path / "postgres.key"]
    served.chmod(0o600)
    shown.chmod(0o640)
    redis.chmod(0o644)
    assert [each.is_wrong for each in of_files([*files, tmp_path / "gone"])] == [False, False, True, True]
    assert [each.is_wrong for each in of_files([served, shown], OTHERS)] == [False, True]


@pytest.mark.parametrize(("days", "good"), [(60, True), (9, False)])
def test_the_certificate_that_a_plane_shows_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, good: bool
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    with answering("ready", authority.issue("127.0.0.1", days=days)) as url:
        findings = examined("--gateway", url)
    assert findings["gateway"]["good"]
    assert findings["gateway certificate"]["good"] is good


async def test_the_certificate_that_redis_shows_is_looked_at(tmp_path: Path, redis_url: str) -> None:
    authority = Authority(tmp_path)
    port = urlsplit(redis_url).port
    assert port is not None
    async with leading_to(port, secured(authority.issue("127.0.0.1", days=9))) as address:
        url = f"rediss://127.0.0.1:{address.port}?ssl_ca_certs={authority.ca_file}"
        # The doctor has an event loop of its own, so it runs in a thread.
        findings = await asyncio.to_thread(of_redis, url, Skews())
    [found] = [each for each in findings if each.what == "redis certificate"]
    assert found.is_wrong
    assert found.detail.endswith(", in 9 days")


@pytest.mark.parametrize(("seconds", "level"), [(30.5, "good"), (9000, "wrong")])
def test_a_key_set_that_the_gateway_has_not_read_for_hours_is_wrong(tmp_path: Path, seconds: float, level: str) -> None:
    with answering(f"quotagate_key_set_age_seconds {seconds}\n") as url:
        management = {"management": {"port": int(url.rpartition(":")[2])}}
        gateway_settings(tmp_path, management)
        findings = examined("--gateway-config", str(tmp_path / "gateway.yaml"))
    assert findings["age of key sets"]["level"] == level
    gateway_settings(tmp_path, management)
    assert examined("--gateway-config", str(tmp_path / "gateway.yaml"))["age of key sets"]["level"] == "note"


def test_providers_by_whom_people_sign_in_are_reached_as_issuers_are(tmp_path: Path) -> None:
    provider = {"issuer": "http://127.0.0.1:1/people", "client_id": "c"}
    change = {
        "signin": {"providers": [{**provider, "name": "okta"}]},
        "portal": {"sign_in": {**provider, "organization_claim": "org_id"}},
    }
    control_settings(tmp_path, change)
    findings = examined("--control-config", str(tmp_path / "control.yaml"))
    for what in ("sign-in: okta", "portal sign-in"):
        assert findings[what]["told"] == (
            "http://127.0.0.1:1/people/.well-known/openid-configuration: it cannot be fetched: ConnectError"
        )


def test_certificates_that_the_control_planes_settings_name_are_looked_at(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    redis, postgres = authority.issue("redis", days=9), authority.issue("postgres")
    dsn = f"postgresql://127.0.0.1/x?sslcert={postgres}&sslrootcert={authority.ca_file}"
    url = f"rediss://127.0.0.1:1?ssl_certfile={redis}"
    control_settings(tmp_path, {"redis": {"url": url}, "postgres": {"dsn": dsn}})
    result = CliRunner().invoke(app, ["doctor", "--control-config", str(tmp_path / "control.yaml"), "--json"])
    told = [each for each in json.loads(result.stdout)["findings"] if each["what"] == "certificate"]
    assert {each["told"].partition(" ")[0]: each["good"] for each in told} == {
        str(redis): False,
        str(postgres): True,
        str(authority.ca_file): True,
    }
