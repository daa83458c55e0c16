"""What the gateway accepts as settings, and what a vendor reads when a line is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.settings_file import SettingsError, load, parse
from common.settings_schema import json_schema
from gateway.settings.root import BESIDE_REQUESTS, GatewaySettings
from tests.gateway.settings import MINIMAL, SECRET, read, refusal

DEFAULT = Path(__file__).parents[2] / "config" / "gateway.yaml"
PEM = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----"


def auth(**changes: Any) -> dict[str, Any]:
    return {"auth": {**MINIMAL["auth"], **changes}}


def route(**changes: Any) -> dict[str, Any]:
    return {"routes": [{**MINIMAL["routes"][0], **changes}]}


def cost(**members: Any) -> dict[str, Any]:
    return route(meters={"tokens": {"max": 50, **members}})


def reported(**changes: Any) -> dict[str, Any]:
    return cost(reported={"header": "X-Units"}, estimate=1, **changes)


def targets(*urls: str, **changes: Any) -> dict[str, Any]:
    return {"upstreams": {"sample": {"targets": list(urls), **changes}}}


def test_the_packaged_default_needs_only_the_secret() -> None:
    settings = load(None, "gateway.yaml", GatewaySettings, {"QUOTAGATE_JWT_SECRET": SECRET})
    assert settings.upstreams["sample"].url == "http://127.0.0.1:9000"
    with pytest.raises(SettingsError) as refused:
        load(None, "gateway.yaml", GatewaySettings, {})
    text = DEFAULT.read_text().splitlines()
    line = 1 + next(i for i, row in enumerate(text) if "QUOTAGATE_JWT_SECRET" in row)
    assert str(refused.value) == (
        f"packaged config/gateway.yaml:{line}: auth.secret: environment variable QUOTAGATE_JWT_SECRET is not set"
    )


def test_the_packaged_default_writes_out_every_default() -> None:
    written = yaml.safe_load(DEFAULT.read_text())
    implied = read().model_dump(mode="json")
    for part in (
        "listen",
        "tokens",
        "timeouts",
        "limits",
        "cors",
        "access_log",
        "management",
        "degraded",
        "workers",
        "hydrate_timeout_ms",
        "upgrade_url",
    ):
        assert written[part] == implied[part], part
    assert written["upstreams"]["sample"].keys() == implied["upstreams"]["sample"].keys()
    assert written["auth"].keys() == implied["auth"].keys()
    assert written["redis"].keys() == implied["redis"].keys()


def test_secrets_are_not_shown_when_settings_are_printed() -> None:
    settings = read(redis={"url": "redis://:hunter2@127.0.0.1/0"})
    assert SECRET not in repr(settings)
    assert "hunter2" not in repr(settings)


def test_a_wrong_line_in_a_yaml_file_names_file_line_and_field(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    text = DEFAULT.read_text().replace("path: /uuid\n    upstream: sample", "path: /uuid\n    upstream: sampel")
    file.write_text(text)
    line = 1 + next(i for i, row in enumerate(text.splitlines()) if "sampel" in row)
    with pytest.raises(SettingsError) as refused:
        load(file, "gateway.yaml", GatewaySettings, {"QUOTAGATE_JWT_SECRET": SECRET})
    assert str(refused.value) == (f'{file}:{line}: routes[1].upstream: no upstream is named "sampel" (known: sample)')


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (auth(algorithms=["HS256", "RS256"]), "auth.algorithms: HS* and public-key algorithms must not be mixed"),
        (auth(algorithms=["none"]), "auth.algorithms[0]: should be 'HS256'"),
        (auth(algorithms=[]), "auth.algorithms: "),
        (auth(secret="short"), "auth.secret: must be at least 32 bytes for HS256"),
        (auth(algorithms=["HS512"]), "auth.secret: must be at least 64 bytes for HS512"),
        (auth(secret=None), "auth.secret: is missing: HS256 needs it"),
        (auth(algorithms=["RS256"], secret=None), "auth.jwks: is missing: RS256 needs it"),
        (auth(algorithms=["RS256"]), "auth.secret: cannot be used with RS256: set jwks instead"),
        (auth(jwks="https://issuer.example/keys"), "auth.jwks: cannot be used with HS256: set secret instead"),
        (auth(secret="ssh-rsa " + 40 * "A"), "auth.secret: is a key of a key pair"),
        (auth(secret=PEM), "auth.secret: is a key of a key pair"),
        (auth(secret=None, algorithms=["RS256"], jwks="http://issuer.example/keys"), "auth.jwks: must be an https"),
        (auth(secret=None, algorithms=["RS256"], jwks="http://127.0.0.1.evil.example/k"), "auth.jwks: must be an "),
        (auth(secret=None, algorithms=["RS256"], jwks="file:///etc/keys.json"), "auth.jwks: must be "),
        (auth(secret=None, algorithms=["RS256"], jwks="https://user:pw@issuer.example/"), "auth.jwks: must be an "),
        (auth(secret=None, algorithms=["RS256"], jwks="no/such/keys.json"), "auth.jwks: the file does not exist"),
        (auth(issuer=None), "auth.issuer: "),
        (auth(audience=[]), "auth.audience: "),
        (
            {"redis": {"url": "redis://127.0.0.1", "durability": "aof", "durability_ms": 200}},
            "redis.durability_ms: must be less than timeout_ms (200)",
        ),
        ({"redis": {"url": "redis://127.0.0.1", "durability": "disk"}}, "redis.durability: should be 'memory'"),
        (route(path="v1"), "routes[0].path: must be an absolute path"),
        (route(path="/v1/../x"), "routes[0].path: must be an absolute path"),
        (route(path="/a%2fb"), "routes[0].path: the path holds an encoded slash"),
        (route(path="/a;b"), "routes[0].path: must hold no parameters"),
        (route(path="/-/health"), "routes[0].path: /-/ is the gateway's own"),
        (route(host="api.example.com:8080"), "routes[0].host: is compared without its port"),
        (route(host="a b"), "routes[0].host: "),
        (route(methods=["get"]), "routes[0].methods[0]: "),
        (route(meters={"Api": 1}), "routes[0].meters.Api: "),
        (route(meters={"api_calls": 0}), "routes[0].meters.api_calls: "),
        (route(meters={"api_calls": 10**12 + 1}), "routes[0].meters.api_calls: "),
        (route(meters={}), "routes[0].meters: name at least one meter"),
        (route(meters={"tokens": "many"}), "routes[0].meters.tokens: should be a valid integer"),
        (route(meters={"tokens": {}}), "routes[0].meters.tokens: must be a number, or have one of header, query"),
        (route(meters={"tokens": {"header": "X-Cost"}}), "routes[0].meters.tokens.max: is missing"),
        (cost(header="Connection"), "routes[0].meters.tokens.header: must name a field that clients may send"),
        (cost(header="X-Quota-Org"), "routes[0].meters.tokens.header: must name a field that clients may send"),
        (cost(header="X Cost"), "routes[0].meters.tokens.header: must name a field that clients may send"),
        (cost(query=""), "routes[0].meters.tokens.query: "),
        (cost(query="n", min=51), "routes[0].meters.tokens.min: must not be more than max (50)"),
        (cost(query="n", default=51), "routes[0].meters.tokens.default: must not be more than max (50)"),
        (cost(query="n", header="X"), "routes[0].meters.tokens: must be a number, or have one of header, query"),
        (cost(query="n", defualt=1), "routes[0].meters.tokens.defualt: unknown field (did you mean default?)"),
        (cost(reported={"header": "X-Units"}), "routes[0].meters.tokens.estimate: is missing"),
        (cost(reported={}, estimate=1), "routes[0].meters.tokens.reported: must be one of header, trailer, json"),
        (cost(reported={"json": "a..b"}, estimate=1), "routes[0].meters.tokens.reported.json: "),
        (
            cost(reported={"json": "a", "jsn": 1}, estimate=1),
            "routes[0].meters.tokens.reported.jsn: unknown field (did",
        ),
        (cost(reported={"trailer": "TE"}, estimate=1), "routes[0].meters.tokens.reported.trailer: must name a field"),
        (cost(reported={"json": "a"}, estimate=51), "routes[0].meters.tokens.estimate: must not be more than max (50)"),
        (cost(reported={"json": []}, estimate=1), "routes[0].meters.tokens.reported.json: "),
        (cost(reported={"json": ["a", "b.."]}, estimate=1), "routes[0].meters.tokens.reported.json[1]: "),
        (cost(reported={"json": 5}, estimate=1), "routes[0].meters.tokens.reported.json: should be a valid string"),
        (cost(reported={"json": {"sum": []}}, estimate=1), "routes[0].meters.tokens.reported.json.sum: "),
        (
            cost(reported={"json": {"sun": ["a"]}}, estimate=1),
            "routes[0].meters.tokens.reported.json.sum: is missing",
        ),
        (
            cost(reported={"json": {"sum": ["a"], "smu": 1}}, estimate=1),
            "routes[0].meters.tokens.reported.json.smu: unknown field (did you mean sum?)",
        ),
        (
            cost(reported={"json": {"sum": ["a", {"sum": ["b"]}]}}, estimate=1),
            "routes[0].meters.tokens.reported.json.sum[1]: must be a path or a list of paths",
        ),
        (
            cost(reported={"json": {"sum": ["a", ["b", ""]]}}, estimate=1),
            "routes[0].meters.tokens.reported.json.sum[1][1]: ",
        ),
        (reported(unreported="nothing"), "routes[0].meters.tokens.unreported: should be 'estimate'"),
        (reported(unreported={"per": "token"}), "routes[0].meters.tokens.unreported.per: should be 'event' or 'byte'"),
        (reported(unreported={"per": "byte", "units": 0}), "routes[0].meters.tokens.unreported.units: "),
        (reported(unreported={"per": "byte", "units": "many"}), "routes[0].meters.tokens.unreported.units: "),
        (
            reported(unreported={"per": "byte", "bsae": 1}),
            "routes[0].meters.tokens.unreported.bsae: unknown field (did",
        ),
        ({"drain": {"stop_seconds": 60, "reload_seconds": 30}}, "drain.reload_seconds: must not be less than stop_sec"),
        ({"drain": {"reload_seconds": 100_000}}, "drain.reload_seconds: "),
        ({"drain": {"reloads_max": 0}}, "drain.reloads_max: "),
        (route(on_abort={}), "routes[0].on_abort: no meter is `reported`"),
        (route(on_abort={"drain_seconds": 0}), "routes[0].on_abort.drain_seconds: "),
        (route(on_abort={"drain_seconds": 3601}), "routes[0].on_abort.drain_seconds: "),
        (route(on_abort="drain"), "routes[0].on_abort: "),
        (route(refund={"on": ["whenever"]}), "routes[0].refund.on[0]: should be 'connect_failure'"),
        (route(refund={"cap_per_period": -1}), "routes[0].refund.cap_per_period: "),
        (route(meters={"api_calls": 1}, exempt=True), "routes[0].meters: an exempt route charges nothing"),
        ({"routes": []}, "routes: "),
        ({"upstreams": {"sample": {"url": "http://127.0.0.1:9000/base"}}}, "upstreams.sample.url: must name scheme"),
        ({"upstreams": {"sample": {"url": "ftp://127.0.0.1"}}}, "upstreams.sample.url: must be http://host[:port]"),
        ({"upstreams": {"sample": {"url": "http://127.0.0.1:nan"}}}, "upstreams.sample.url: must be http://host"),
        ({"upstreams": {"sample": {}}}, "upstreams.sample.url: is missing (or `targets`, for several)"),
        (targets("http://a", url="http://b"), "upstreams.sample.targets: names the targets instead of `url`"),
        (targets("http://a", "http://b", "http://a/"), "upstreams.sample.targets[2]: is given twice: http://a"),
        (targets("http://a", "https://b"), "upstreams.sample.targets[1]: must have the scheme of the others"),
        (targets("http://a", "http://b/x"), "upstreams.sample.targets[1]: must name scheme, host and port only"),
        (targets(), "upstreams.sample.targets: "),
        (targets("http://a", balance="random"), "upstreams.sample.balance: should be 'round_robin' or"),
        (targets("http://a", tls={}), "upstreams.sample.tls: is for https targets"),
        (targets("https://a", tls={"ca_file": "no/such.pem"}), "upstreams.sample.tls.ca_file: cannot be used: No such"),
        (targets("http://a", health={"path": "healthz"}), "upstreams.sample.health.path: "),
        (
            targets("http://a", ejection={"seconds": 60}),
            "upstreams.sample.ejection.seconds_max: must not be less than seconds (60)",
        ),
        ({"redis": {"url": "http://127.0.0.1"}}, "redis.url: must be redis://host[:port]"),
        ({"redis": {"url": "redis://h", "shards": 101}}, "redis.shards: "),
        ({"cors": {"allowed_origins": ["https://app.example.com/"]}}, "cors.allowed_origins[0]: an origin is"),
        ({"workers": 0}, "workers: "),
        ({"upgrade_url": "javascript:alert(1)"}, "upgrade_url: "),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes: dict[str, Any], message: str) -> None:
    assert refusal(**changes).startswith(message)


def test_a_cost_from_the_environment_is_a_number() -> None:
    text = json.dumps({**MINIMAL, **route(meters={"tokens": "${COST}"})})
    assert parse("gateway.yaml", text, GatewaySettings, {"COST": "7"}).routes[0].meters == {"tokens": 7}


def test_two_routes_that_fit_the_same_requests_are_refused() -> None:
    twice = [{"path": "/v1", "upstream": "sample"}, {"path": "/v1/", "upstream": "sample"}]
    assert refusal(routes=twice) == "routes[1]: fits the same requests as routes[0]"
    by_method = [{**twice[0], "methods": ["GET"]}, {**twice[1], "methods": ["POST"]}, twice[0]]
    assert len(read(routes=by_method).routes) == 3


@pytest.mark.parametrize("jwks", ["https://issuer.example/keys", "http://127.0.0.1:8000/keys", "http://[::1]/k"])
def test_a_key_set_may_come_over_https_or_from_this_machine(jwks: str) -> None:
    assert read(**auth(algorithms=["RS256", "EdDSA"], secret=None, jwks=jwks)).auth.jwks == jwks


def test_the_json_schema_of_the_settings_describes_every_part() -> None:
    schema = json_schema(GatewaySettings)
    assert schema["$defs"]["Auth"]["properties"]["org_claim"]["description"]
    assert set(schema["required"]) == {"redis", "auth", "upstreams", "routes"}


def test_what_decides_on_no_request_is_named_as_it_is() -> None:
    assert GatewaySettings.model_fields.keys() >= BESIDE_REQUESTS
