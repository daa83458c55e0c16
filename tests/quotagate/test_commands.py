"""The command line, as far as it needs no server."""

import json
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.algorithms import RSAAlgorithm
from typer.testing import CliRunner

from devstack import datadir
from quotagate.main import app

SECRET = "of-the-tests-and-long-enough-for-hs256"


@pytest.fixture
def run() -> CliRunner:
    return CliRunner()


def test_a_minted_token_names_the_organization_and_ends_after_its_time(run: CliRunner) -> None:
    arguments = ["token", "mint", "acme", "--ttl", "30m", "--secret-env", "SECRET"]
    result = run.invoke(app, arguments, env={"SECRET": SECRET})
    claims = jwt.decode(result.stdout.strip(), SECRET, ["HS256"], audience="quotagate", issuer="quotagate-dev")
    assert claims["org_id"] == "acme"
    assert claims["exp"] - claims["iat"] == 30 * 60
    assert abs(claims["iat"] - time.time()) < 60


def test_a_minted_token_is_good_for_the_stack_of_the_data_directory(run: CliRunner, tmp_path: Path) -> None:
    secret = datadir.prepare(tmp_path / "data").secrets().jwt_secret
    result = run.invoke(app, ["token", "mint", "acme", "--data-dir", str(tmp_path / "data")])
    jwt.decode(result.stdout.strip(), secret, ["HS256"], audience="quotagate", issuer="quotagate-dev")


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["token", "mint", "acme", "--ttl", "soon"], 2, "a whole number and a unit"),
        (["token", "mint", "acme", "--secret-env", "UNSET"], 2, "environment variable UNSET is not set"),
        (["token", "mint", "acme", "--data-dir", "nowhere"], 1, "nowhere holds no secrets yet"),
        (
            ["org", "list", "--data-dir", "nowhere"],
            1,
            "no stack runs on nowhere: start `quotagate up`, or name a control plane with --control-url",
        ),
        (
            ["doctor", "--data-dir", "nowhere"],
            1,
            "no stack runs on nowhere: start `quotagate up`, or name what to check: --gateway, --control, ",
        ),
        (
            ["org", "list", "--control-url", "http://x", "--admin-token-env", "UNSET"],
            2,
            "UNSET must hold the admin token",
        ),
        (["migrate"], 2, "is missing: pass it, or set QUOTAGATE_POSTGRES_OWNER_DSN or QUOTAGATE_POSTGRES_DSN"),
        (["migrate", "--dsn", "localhost:5432"], 2, "must begin with postgresql://"),
        (["migrate", "--dsn", "postgresql://127.0.0.1:1/none"], 1, "Postgres: "),
    ],
)
def test_what_is_wrong_is_told_plainly(
    run: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], exit_code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run.invoke(app, arguments)
    assert result.exit_code == exit_code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [[], ["gateway"], ["up"], ["org"], ["token", "mint"]])
def test_help_loads_neither_plane_nor_any_client(arguments: list[str]) -> None:
    loaded = "; ".join(
        [
            "import sys",
            "from typer.testing import CliRunner",
            "from quotagate.main import app",
            f"assert CliRunner().invoke(app, {[*arguments, '--help']!r}).exit_code == 0",
            "print(*sorted({name.partition('.')[0] for name in sys.modules}))",
        ]
    )
    names = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout.split()
    assert not {"gateway", "control", "devstack", "httpx", "redis", "asyncpg"} & set(names)


def test_good_settings_are_said_to_be_good(run: CliRunner) -> None:
    secrets = {
        "QUOTAGATE_JWT_SECRET": SECRET,
        "QUOTAGATE_ADMIN_TOKEN": "of-the-tests-and-long",
        "QUOTAGATE_POSTGRES_DSN": "postgresql://127.0.0.1/quotagate",
    }
    result = run.invoke(app, ["config", "check"], env=secrets)
    assert result.stdout.splitlines() == [
        "packaged config/gateway.yaml: valid",
        "packaged config/control.yaml: valid",
        "packaged config/plans.yaml: valid",
    ]


def test_a_wrong_setting_is_told_with_file_line_and_field(run: CliRunner, tmp_path: Path) -> None:
    wrong = tmp_path / "gateway.yaml"
    wrong.write_text("listen:\n  prot: 8080\n")
    result = run.invoke(app, ["config", "check", "--gateway-config", str(wrong)])
    assert result.exit_code == 2
    assert f"{wrong}:2: listen.prot: unknown field (did you mean port?)" in result.stderr.splitlines()


def test_a_key_file_without_a_usable_key_is_told_and_no_issuer_is_asked(run: CliRunner, tmp_path: Path) -> None:
    keys, gateway = tmp_path / "keys.json", tmp_path / "gateway.yaml"
    asked = "{issuer: 'https://issuer.invalid', algorithms: [RS256], discovery: true}"
    gateway.write_text(
        "redis: {url: redis://127.0.0.1}\nupstreams: {api: {url: http://127.0.0.1:9000}}\n"
        "routes: [{path: /, upstream: api}]\n"
        f"auth: {{issuers: [{asked}, {{issuer: b, algorithms: [RS256], jwks: {keys}}}]}}\n"
    )
    keys.write_text('{"keys": [{"kty": "oct", "k": "AAAA"}]}')
    result = run.invoke(app, ["config", "check", "--gateway-config", str(gateway)])
    assert result.exit_code == 2
    assert f"{gateway}: auth.issuers[1].jwks: it has no key for RS256" in result.stderr
    good = {**json.loads(RSAAlgorithm.to_jwk(generate_private_key(65537, 2048).public_key())), "kid": "1"}
    keys.write_text(json.dumps({"keys": [good]}))
    assert run.invoke(app, ["config", "check", "--gateway-config", str(gateway)]).exit_code == 0


def test_a_route_whose_meter_no_plan_has_is_told_before_every_call_is_refused(run: CliRunner, tmp_path: Path) -> None:
    gateway = tmp_path / "gateway.yaml"
    gateway.write_text(
        "redis: {url: redis://127.0.0.1}\nauth: {algorithms: [HS256], secret: '" + SECRET + "', issuer: i}\n"
        "upstreams: {api: {url: http://127.0.0.1:9000}}\n"
        "routes:\n  - {path: /, upstream: api, meters: {api_cals: 1}}\n"
    )
    plans = "config/plans.yaml"
    result = run.invoke(app, ["config", "check", "--gateway-config", str(gateway), "--plans", plans])
    assert result.exit_code == 2
    assert f"{gateway}: routes[0].meters: no plan has the meter api_cals (did you mean api_calls?)" in result.stderr
    assert run.invoke(app, ["config", "check", "--gateway-config", str(gateway)]).exit_code == 0


def test_the_version_is_an_option_too(run: CliRunner) -> None:
    assert run.invoke(app, ["--version"]).stdout == run.invoke(app, ["version"]).stdout != ""


def test_usage_errors_show_no_lists_of_python(run: CliRunner) -> None:
    for arguments in (["migrate"], ["usage", "restore"], ["plans", "apply"], ["audit", "verify", "--from", "x"]):
        assert "['" not in run.invoke(app, arguments).stderr


@pytest.mark.parametrize("kind", ["gateway", "control", "plans"])
def test_each_settings_file_has_a_schema(run: CliRunner, kind: str) -> None:
    schema = json.loads(run.invoke(app, ["config", "schema", kind]).stdout)
    assert schema["type"] == "object"
