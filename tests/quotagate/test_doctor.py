"""The doctor says what is wrong, and nothing when nothing is."""

import json
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from typer.testing import CliRunner

from common.settings_file import load
from control.settings.control_plane import Settings
from control.sql.roles import Hardening
from gateway.settings.root import GatewaySettings
from quotagate.diagnosis.certificates import judge_end, shown_until
from quotagate.diagnosis.exposure import judge_port, of_control, of_gateway
from quotagate.diagnosis.finding import Level
from quotagate.diagnosis.secrets import OTHERS, key_files_of_control, key_files_of_gateway, of_files, of_settings
from quotagate.diagnosis.stores import judge_hardening, judge_redis, judge_times
from quotagate.main import app
from tests.authority import Authority

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens there
SECRET = "of-the-tests-and-long-enough-for-hs256"

HEALTHY = {"valkey_version": "9.1.2", "aof_enabled": 1, "maxmemory_policy": "noeviction", "maxmemory": 0}


def wrong(info: dict[str, Any]) -> list[str]:
    return [finding.what for finding in judge_redis(info, "") if finding.is_wrong]


def test_a_healthy_redis_has_nothing_wrong() -> None:
    assert wrong(HEALTHY) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"valkey_version": None, "redis_version": "6.2.14"}, "redis version"),
        ({"aof_enabled": 0}, "redis persistence"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 1 << 30}, "redis eviction"),
    ],
)
def test_a_redis_that_could_lose_charges_is_wrong(change: dict[str, Any], what: str) -> None:
    assert wrong({**HEALTHY, **change}) == [what]


def test_a_slow_redis_and_a_clock_that_is_off_are_wrong() -> None:
    assert not any(finding.is_wrong for finding in judge_times(0.2, -0.1))
    assert all(finding.is_wrong for finding in judge_times(20, 90))


@pytest.mark.parametrize(("save", "said"), [("", "keeps nothing on its disk"), ("3600 1", "since the last snapshot")])
def test_what_a_redis_without_an_append_only_file_loses_is_said(save: str, said: str) -> None:
    [found] = [each for each in judge_redis({**HEALTHY, "aof_enabled": 0}, save) if each.is_wrong]
    assert said in found.detail


def test_what_does_not_answer_is_wrong_and_told_in_one_line(tmp_path: Path) -> None:
    arguments = ["doctor", "--gateway", "http://127.0.0.1:1", "--redis", "redis://127.0.0.1:1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    found = [["WRONG", "gateway"], ["WRONG", "redis"], ["good", "installation"]]
    assert [line.split()[:2] for line in result.stdout.splitlines()] == found
    assert "2 of 3 checks failed" in result.stderr
    left_out = [line for line in result.stderr.splitlines() if line.startswith("not checked: ")]
    assert [line.split(": ")[1] for line in left_out] == ["the control plane", "PostgreSQL", "upstreams", "key sets"]
    report = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert [f"not checked: {each}" for each in report["not_looked_at"]] == left_out


def test_a_redis_of_the_embedded_stack_is_looked_at(redis_url: str) -> None:
    result = CliRunner().invoke(app, ["doctor", "--redis", redis_url])
    good_by_name = {line[7:25].strip(): line.startswith("good") for line in result.stdout.splitlines()}
    assert good_by_name.pop("redis persistence") is False  # the one for tests keeps nothing
    good_by_name.pop("redis round trip")  # good or wrong: the machine of the tests may be busy
    assert set(good_by_name) == {"redis version", "redis eviction", "redis clock", "installation"}
    assert all(good_by_name.values())


def gateway_config(tmp_path: Path, upstreams: dict[str, Any], auth: dict[str, Any] | None = None) -> str:
    auth = auth or {"algorithms": ["HS256"], "secret": SECRET}
    settings = {
        "redis": {"url": "redis://127.0.0.1:1"},
        "auth": {"issuer": "doctor", "audience": "doctor", **auth},
        "upstreams": upstreams,
        "routes": [{"path": "/", "upstream": name} for name in list(upstreams)[:1]],
    }
    file = tmp_path / "gateway.yaml"
    file.write_text(json.dumps(settings))  # JSON is YAML
    return str(file)


def gateway_settings(tmp_path: Path, change: dict[str, Any]) -> GatewaySettings:
    """As written into gateway.yaml, with this change."""
    file = Path(gateway_config(tmp_path, {"api": {"url": "http://127.0.0.1:1"}}))
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    return load(file, "gateway.yaml", GatewaySettings)


def control_settings(tmp_path: Path, change: dict[str, Any]) -> Settings:
    """The same of control.yaml."""
    settings = {
        "postgres": {"dsn": "postgresql://127.0.0.1/x"},
        "redis": {"url": "redis://127.0.0.1:1"},
        "admin_token": "of-the-tests-and-long-enough",
        **change,
    }
    file = tmp_path / "control.yaml"
    file.write_text(json.dumps(settings))
    return load(file, "control.yaml", Settings)


def examined(*arguments: str) -> dict[str, dict[str, Any]]:
    """The findings by what they are of; the exit code says the same."""
    result = CliRunner().invoke(app, ["doctor", *arguments, "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == (1 if report["wrong"] else 0), result.output
    assert report["wrong"] == sum(not each["good"] for each in report["findings"])
    return {each["what"]: each for each in report["findings"]}


def secured(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@contextmanager
def listening(certificate: Path | None = None, path: Path | None = None) -> Iterator[str]:
    """A target that takes connections; its address."""

    class Silent(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                peer = self.request if certificate is None else secured(certificate).wrap_socket(self.request, True)
                peer.recv(1)
            except OSError:
                pass  # whoever does not believe us goes

    server: socketserver.BaseServer
    if path is None:
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent)
        url = f"127.0.0.1:{server.server_address[1]}"
    else:
        server, url = socketserver.ThreadingUnixStreamServer(str(path), Silent), f"unix://{path}"
    with server as target:
        threading.Thread(target=target.serve_forever, daemon=True).start()
        try:
            yield url
        finally:
            target.shutdown()


def test_the_findings_are_there_for_programs_too_with_the_same_exit_code(redis_url: str) -> None:
    findings = examined("--redis", redis_url)
    assert findings["redis persistence"]["good"] is False
    assert findings["redis version"]["good"] is True
    assert set(findings["redis version"]) == {"good", "level", "what", "told"}


def test_each_target_of_each_upstream_is_connected_to_as_the_gateway_does(tmp_path: Path) -> None:
    for name in ("ours", "others"):
        (tmp_path / name).mkdir()
    ours, others = (Authority(tmp_path / name) for name in ("ours", "others"))
    believed, named = {"ca_file": str(ours.ca_file)}, {"ca_file": str(ours.ca_file), "server_name": "api.example"}
    with (
        listening() as plain,
        socket.create_server(("127.0.0.1", 0)) as unheard,
        listening(path=tmp_path / "socket") as unix,
        listening(ours.issue("127.0.0.1", "localhost")) as tls,
        listening(ours.issue("api.example")) as other_name,
        listening(others.issue("127.0.0.1")) as unknown,
    ):
        silent = f"127.0.0.1:{unheard.getsockname()[1]}"
        upstreams = {
            "plain": {"url": f"http://{plain}"},
            "unix": {"url": unix},
            "away": {"targets": ["http://127.0.0.1:1", f"http://{plain}"]},
            "no_socket": {"url": f"unix://{tmp_path / 'none'}"},
            "tls": {"url": f"https://{tls}", "tls": believed},
            "by_name": {"url": f"https://{other_name}", "tls": named},
            "other_name": {"url": f"https://{other_name}", "tls": believed},
            "unknown": {"url": f"https://{unknown}", "tls": believed},
            "unlooked": {"url": f"https://{unknown}", "tls": {"verify": False}},
            "no_tls": {"url": f"https://{plain}"},
            "silent": {"url": f"https://{silent}", "connect_timeout_seconds": 0.3},
            "nowhere": {"url": "http://nowhere.invalid"},
        }
        config = gateway_config(tmp_path, upstreams)
        findings = examined("--gateway-config", config)
    good = {"plain", "unix", "tls", "by_name", "unlooked", "away"}  # of `away`, the last target
    assert {name for name in upstreams if findings[f"upstream {name}"]["good"]} == good
    assert "is not trusted: " in findings["upstream unknown"]["told"]
    assert "127.0.0.1" in findings["upstream other_name"]["told"]
    assert findings["upstream no_tls"]["told"].endswith(" failed: ConnectionResetError")
    assert "does not answer within 0.3 s" in findings["upstream silent"]["told"]
    lines = CliRunner().invoke(app, ["doctor", "--gateway-config", config]).stdout.splitlines()
    assert any(line.startswith("WRONG  upstream away      ") and "http://127.0.0.1:1 failed" in line for line in lines)


def test_certificates_that_end_soon_or_have_ended_are_wrong(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good, soon, ended = authority.issue("good"), authority.issue("soon", days=9), authority.issue("ended", days=-2)
    file = tmp_path / "gateway.yaml"
    with listening(authority.issue("127.0.0.1", days=9)) as short:
        trusted = {"ca_file": str(authority.ca_file)}
        gateway_config(tmp_path, {"short": {"url": f"https://{short}", "tls": trusted}})
        shown = [{"cert_file": str(each)} for each in (good, soon, ended)]
        file.write_text(json.dumps({**json.loads(file.read_text()), "listen": {"tls": {"certificates": shown}}}))
        result = CliRunner().invoke(app, ["doctor", "--gateway-config", str(file), "--json"])
    findings = json.loads(result.stdout)["findings"]
    told = {each["told"].partition(" ")[0]: each for each in findings if each["what"] == "certificate"}
    assert [told[str(each)]["good"] for each in (good, soon, ended)] == [True, False, False]
    assert told[str(ended)]["told"].startswith(f"{ended} ended on 20")
    [upstream] = [each for each in findings if each["what"] == "upstream short"]
    assert not upstream["good"]
    assert upstream["told"].endswith(", in 9 days")


@pytest.mark.parametrize("plane", ["gateway", "control"])
def test_key_sets_are_read_as_both_planes_read_them(
    tmp_path: Path, plane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "")
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    good = {"keys": [{**json.loads(ECAlgorithm.to_jwk(key)), "kid": "1"}, {"kty": "oct", "k": "AAAA"}]}
    file = tmp_path / "jwks.json"

    def finding(auth: dict[str, Any]) -> dict[str, Any]:
        if plane == "gateway":
            config = gateway_config(tmp_path, {"api": {"url": "http://127.0.0.1:1"}}, auth)
        else:
            config = str(tmp_path / "control.yaml")
            control_settings(tmp_path, {"auth": {"issuer": "doctor", **auth}})
        return examined(f"--{plane}-config", config)[f"keys of {plane}"]

    public = {"algorithms": ["ES256"], "jwks": str(file)}
    file.write_text(json.dumps(good))
    assert finding(public)["told"] == f"{file} has 1 usable key for ES256"
    file.write_text(json.dumps({"keys": good["keys"][1:]}))
    assert finding(public)["told"] == f"{file}: it has no key for ES256"
    file.write_text("<html>")
    assert "it is not a JWK set" in finding(public)["told"]
    away = finding({"algorithms": ["ES256"], "jwks": "http://127.0.0.1:1/jwks?key=hidden"})
    assert not away["good"]
    assert away["told"] == "http://127.0.0.1:1/jwks: it cannot be fetched: ConnectError"
    assert finding({"algorithms": ["HS256"], "secret": SECRET})["good"]


def test_the_keys_of_each_issuer_are_looked_at(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [{**json.loads(ECAlgorithm.to_jwk(key)), "kid": "1"}]}))
    issuers = [
        {"issuer": "by-file", "algorithms": ["ES256"], "jwks": str(file)},
        {"issuer": "http://127.0.0.1:1/tenant", "algorithms": ["ES256"], "discovery": True},
        {"issuer": "by-secret", "algorithms": ["HS256"], "secret": SECRET},
    ]
    config = Path(gateway_config(tmp_path, {"api": {"url": "http://127.0.0.1:1"}}))
    config.write_text(json.dumps({**json.loads(config.read_text()), "auth": {"issuers": issuers}}))
    findings = examined("--gateway-config", str(config))
    assert findings["keys of gateway: by-file"]["good"]
    assert findings["keys of gateway: by-secret"]["good"]
    away = findings["keys of gateway: http://127.0.0.1:1/tenant"]
    assert not away["good"]
    configuration = "http://127.0.0.1:1/tenant/.well-known/openid-configuration"
    assert away["told"] == f"{configuration}: it cannot be fetched: ConnectError"


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


@contextmanager
def answering(text: str, certificate: Path | None = None) -> Iterator[str]:
    """A server that answers everything with this text; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name that the base class gives it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate is not None:
            server.socket = secured(certificate).wrap_socket(server.socket, True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
        server.shutdown()


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


async def test_the_certificate_that_redis_shows_is_looked_at(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    with listening(authority.issue("127.0.0.1", days=9)) as address:
        ends = await shown_until("127.0.0.1", int(address.rpartition(":")[2]), context)
    assert ends is not None
    assert judge_end(ends, time.time()) == (False, judge_end(ends, time.time())[1])


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
