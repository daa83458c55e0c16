"""The doctor says what is wrong, and nothing when nothing is."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from typer.testing import CliRunner

from common.redis_cluster.topology import Address, Range, Topology, View
from devstack.ports import free_port
from quotagate.diagnosis import redis_certificates, stores
from quotagate.diagnosis.cluster import judge_servers, judge_views, together
from quotagate.diagnosis.redis_server import judge_redis
from quotagate.diagnosis.stores import judge_times
from quotagate.main import app
from tests.authority import Authority
from tests.quotagate.diagnosis.examining import (
    SECRET,
    control_settings,
    examined,
    gateway_config,
    listening,
)

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


def test_of_a_clusters_primaries_each_that_could_lose_charges_is_named() -> None:
    healthy, forgets = list(judge_redis(HEALTHY, "")), list(judge_redis({**HEALTHY, "aof_enabled": 0}, "900 1"))
    found = together({"one:1": healthy, "two:2": forgets, "three:3": forgets})
    assert [(each.what, each.is_wrong) for each in found] == [
        ("redis version", False),
        ("redis eviction", False),
        ("redis persistence", True),
        ("redis persistence", True),
    ]
    assert [each.detail.partition(": ")[0] for each in found if each.is_wrong] == ["two:2", "three:3"]


def test_a_cluster_that_does_not_serve_all_slots_and_servers_that_disagree_are_told_by_name() -> None:
    one, other = Address("one", 1), Address("two", 2)
    whole = View(Topology((Range(0, 8191, one), Range(8192, 16383, other))), 4, is_ok=True)
    half = View(Topology((Range(0, 8191, one),)), 5, is_ok=True)
    assert not any(each.is_wrong for each in judge_views({one: whole, other: whole}))
    slots, views = judge_views({one: whole, other: half})
    assert (slots.what, slots.is_wrong) == ("redis slots", True)
    assert slots.detail.endswith("no primary has 8192-16383")
    assert (views.what, views.is_wrong) == ("redis views", True)
    assert "disagree whose slot 8192 is: one:1 names two:2; two:2 names nobody" in views.detail
    [away] = judge_servers(3, {"two:2": "two:2 closed the connection"})
    assert (away.is_wrong, away.detail) == (True, "2 of 3 answer (two:2: closed the connection)")


@pytest.mark.parametrize(
    ("installed", "named", "good"),
    [
        (32, (32, 32), True),
        (None, (32, 32), True),
        (32, (32, 16), False),
        (16, (32, 32), False),
        (None, (32, 16), False),
    ],
)
def test_another_number_of_shards_is_told_with_whose_it_is(
    installed: int | None, named: tuple[int, int], good: bool
) -> None:
    gateway, control = named
    [found] = stores.judge_shards(installed, {"the gateway's settings": gateway, "the control plane's": control})
    assert found.is_wrong is not good
    assert f"the gateway's settings say {gateway}, the control plane's say {control}" in found.detail
    assert list(stores.judge_shards(installed, {})) == []


def test_a_slow_redis_and_a_clock_that_is_off_are_wrong() -> None:
    assert not any(finding.is_wrong for finding in judge_times(0.2, -0.1))
    assert all(finding.is_wrong for finding in judge_times(20, 90))


async def test_one_slow_answer_of_a_redis_that_is_quick_is_no_fault() -> None:
    class Redis:
        delays = iter((0.05, *[0.0] * 100))

        async def time(self) -> tuple[int, int]:
            await asyncio.sleep(next(self.delays))
            return 0, 0

    seconds, _ = await stores.quickest_answer(Redis())
    assert seconds < 0.05


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


def test_a_variable_that_is_left_over_is_named_with_what_it_leaves_out() -> None:
    left_over = {"QUOTAGATE_POSTGRES_DSN": "postgresql://127.0.0.1:1/none"}
    result = CliRunner().invoke(app, ["doctor", "--data-dir", "here"], env=left_over)
    lines = result.stderr.splitlines()
    assert "checked: PostgreSQL: the environment has QUOTAGATE_POSTGRES_DSN" in lines
    stack = "what `quotagate up` runs on here: unset QUOTAGATE_POSTGRES_DSN, and it is checked"
    assert f"not checked: {stack}" in lines
    report = json.loads(CliRunner().invoke(app, ["doctor", "--data-dir", "here", "--json"], env=left_over).stdout)
    assert report["looked_at"] == ["PostgreSQL: the environment has QUOTAGATE_POSTGRES_DSN"]
    assert report["not_looked_at"][-1] == stack


def test_what_an_option_names_is_said_to_be_named_by_it_and_no_stack_is_missed() -> None:
    arguments = ["doctor", "--redis", "redis://127.0.0.1:1"]
    left_over = {"QUOTAGATE_POSTGRES_DSN": "postgresql://127.0.0.1:1/none"}
    lines = CliRunner().invoke(app, arguments, env=left_over).stderr.splitlines()
    assert "checked: Redis: --redis names it" in lines
    assert "checked: PostgreSQL: the environment has QUOTAGATE_POSTGRES_DSN" in lines
    assert not [line for line in lines if "quotagate up" in line]


def test_a_redis_of_the_embedded_stack_is_looked_at(redis_url: str) -> None:
    result = CliRunner().invoke(app, ["doctor", "--redis", redis_url])
    good_by_name = {line[7:25].strip(): line.startswith("good") for line in result.stdout.splitlines()}
    assert good_by_name.pop("redis persistence") is False  # the one for tests keeps nothing
    good_by_name.pop("redis round trip")  # good or wrong: the machine of the tests may be busy
    assert set(good_by_name) == {"redis version", "redis eviction", "redis primaries", "redis clock", "installation"}
    assert all(good_by_name.values())


async def test_a_redis_that_shows_no_certificate_is_told_by_its_address() -> None:
    port = free_port()
    [found] = await redis_certificates.of_all(f"rediss://127.0.0.1:{port}", None)
    assert (found.what, found.is_wrong) == ("redis certificate", True)
    assert found.detail.startswith(f"127.0.0.1:{port}: a connection failed: ")


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
