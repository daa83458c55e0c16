"""Nothing in Redis' URL is passed over in silence: both planes honour it, or refuse it at the start by its name."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from typer.testing import CliRunner

from common import redis_url
from common.redis_sentinel_url import taken_apart
from control.settings.control_plane import Redis as OfControl
from gateway.settings.redis import Redis as OfGateway
from quotagate.main import app
from tests.authority import Authority

FORM = (
    "must be redis://host[:port], rediss://host[:port] or unix:///path; or redis+sentinel://host,host/NAME; or "
    "redis+cluster://host[:port],host[:port]"
)
BY_SENTINELS = "must be redis+sentinel://host[:port][,host[:port]…]/NAME[/DB], or rediss+sentinel:// for TLS"
REFUSED = {
    "http://127.0.0.1": FORM,
    "redis+cluster://127.0.0.1,": "must be redis+cluster://host[:port],host[:port]",
    "rediss+cluster://a,b/1": "a Redis Cluster has no databases: the path must be empty",
    "rediss+cluster://a,b?db=0": "a Redis Cluster has no databases: leave db out",
    "rediss+cluster://a,b?ssl_certfiles=x": "option ssl_certfiles is not supported (did you mean ssl_certfile?)",
    "rediss+cluster://a,b?read_from_replicas=yes": "option read_from_replicas is not supported",
    "rediss+cluster://a,b?sentinel_password=x": "option sentinel_password is not supported",
    "redis+cluster://a,b?ssl_cert_reqs=none": "ssl_cert_reqs can only be used with rediss://",
    "redis+sentinel://127.0.0.1": BY_SENTINELS,
    "redis+sentinel:///main": BY_SENTINELS,
    "redis+sentinel://a,,b/main": BY_SENTINELS,
    "redis+sentinel://a:0/main": BY_SENTINELS,
    "redis+sentinel://a/main#x": BY_SENTINELS,
    "redis+sentinel://a,a:26379/main": "a Sentinel is given twice",
    "redis+sentinel://a/main/first": "the path must be the number of a database: /0",
    "redis+sentinel://a/main/0?db=1": "db is given twice: in the path and as an option",
    "redis+sentinel://a/main?sentinel_db=1": "option sentinel_db is not supported",
    "redis+sentinel://a/main?quorum=2": "option quorum is not supported",
    "redis+sentinel://a/main?sentinel_quorum=2": "of the Sentinels: option quorum is not supported",
    "redis+sentinel://a/main?sentinel_ssl=maybe": "sentinel_ssl must be yes or no, and given once",
    "redis+sentinel://a/main?ssl_cert_reqs=none": "ssl_cert_reqs can only be used with rediss://",
    "redis+sentinel://a/main?sentinel_ssl_cert_reqs=none": "of the Sentinels: ssl_cert_reqs can only be used with",
    "rediss+sentinel://a/main?sentinel_ssl_certfiles=x": "of the Sentinels: option ssl_certfiles is not supported (did",
    "rediss+sentinel://a/main?sentinel_ssl=no&sentinel_ssl_cert_reqs=none": "of the Sentinels: ssl_cert_reqs can only",
    "rediss+sentinel://a/main?sentinel_ssl_ca_certs=/none": "of the Sentinels: ssl_ca_certs is not a file: /none",
    "redis://": FORM,
    "redis://127.0.0.1:0": FORM,
    "redis://127.0.0.1:x": FORM,
    "unix://host/run/redis.sock": "the path of a socket must be absolute: unix:///path",
    "unix://": "the path of a socket must be absolute: unix:///path",
    "redis://h/0#x": "must have no fragment (#)",
    "redis://h/first": "the path must be the number of a database: /0",
    "redis://h/0/1": "the path must be the number of a database: /0",
    "redis://h?db=x": "db must be the number of a database",
    "redis://h/0?db=1": "db is given twice: in the path and as an option",
    "redis://h?db=1&db=2": "db is given twice",
    "redis://u:p@h?password=q": "password is given twice: before the host and as an option",
    "redis://h?socket_timeout=5": "option socket_timeout is not supported (known: db, username, password, "
    "ssl_certfile, ssl_keyfile, ssl_ca_certs, ssl_cert_reqs, ssl_check_hostname, ssl_ca_path, ssl_ca_data, "
    "ssl_ciphers, ssl_min_version, ssl_password, ssl_include_verify_flags, ssl_exclude_verify_flags; timeouts are "
    "separate settings)",
    "rediss://h?ssl_certfiles=x": "option ssl_certfiles is not supported (did you mean ssl_certfile?)",
    "rediss://h?max_connections=5": "option max_connections is not supported",
    "rediss://h?protocol=3": "option protocol is not supported",
    "rediss://h?skip_full_coverage_check=yes": "option skip_full_coverage_check is not supported",
    "redis://h?ssl_cert_reqs=none": "ssl_cert_reqs can only be used with rediss://",
    "unix:///run/redis.sock?ssl_cert_reqs=none": "ssl_cert_reqs can only be used with rediss://",
    "rediss://h?ssl_cert_reqs=maybe": "ssl_cert_reqs must be required, optional or none",
    "rediss://h?ssl_check_hostname=off": "ssl_check_hostname must be true, false, yes, no, 1 or 0",
    "rediss://h?ssl_certfile=": "ssl_certfile is empty",
    "rediss://h?ssl_certfile=/none.pem": "ssl_certfile is not a file: /none.pem",
    "rediss://h?ssl_keyfile=/none.pem": "ssl_keyfile is not a file: /none.pem",
    "rediss://h?ssl_ca_certs=/none.pem": "ssl_ca_certs is not a file: /none.pem",
    "rediss://h?ssl_ca_path=/none": "ssl_ca_path is not a directory: /none",
    "rediss://h?ssl_min_version=new": "Invalid value for 'ssl_min_version' in connection URL.",
    "rediss://h?ssl_min_version=1": "ssl_min_version: cannot be used",
    "rediss://h?ssl_ciphers=none": "ssl_ciphers: cannot be used",
    "rediss://h?ssl_ca_data=none": "ssl_ca_data: cannot be used",
    "rediss://h?ssl_include_verify_flags=NONE": "Invalid value for 'ssl_include_verify_flags' in connection URL.",
}


@pytest.mark.parametrize("of", [OfGateway, OfControl])
@pytest.mark.parametrize("url", REFUSED)
def test_what_is_not_honoured_in_the_url_of_redis_is_refused_by_its_name_at_both_planes(
    of: type[BaseModel], url: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        of.model_validate({"url": url})
    [fault] = refused.value.errors(include_url=False)
    assert fault["loc"] == ("url",)
    assert REFUSED[url] in fault["msg"]


@pytest.mark.parametrize("of", [OfGateway, OfControl])
@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1",
        "redis://127.0.0.1/",
        "redis://127.0.0.1:6379/15",
        "redis://[::1]:6379?db=3",
        "redis://user:p%40ss@redis.internal",
        "redis://:secret@redis.internal/0",
        "unix:///run/redis.sock?db=2&username=u&password=p",
        "unix://user:secret@/run/redis.sock",
        "rediss://redis.internal/0?ssl_cert_reqs=optional&ssl_check_hostname=false&ssl_min_version=771",
        "redis+sentinel://one,two:26380,[::1]:26381/main",
        "redis+sentinel://gate:secret@one,two,three/main/2?sentinel_username=watch&sentinel_password=other",
        "rediss+sentinel://one,two,three/main?ssl_check_hostname=false&sentinel_ssl=no",
        "redis+sentinel://one/main?sentinel_ssl=yes&sentinel_ssl_cert_reqs=none",
        "rediss+cluster://gate:p%40ss@one,two:6380?ssl_check_hostname=false&ssl_min_version=772",
        "rediss://redis.internal?ssl_ciphers=ECDHE%2BAESGCM&ssl_include_verify_flags=VERIFY_X509_STRICT",
    ],
)
def test_what_redis_py_honours_is_taken(of: type[BaseModel], url: str) -> None:
    of.model_validate({"url": url})


def test_a_key_without_its_certificate_and_files_that_hold_none_are_refused(
    authority: Authority, tmp_path: Path
) -> None:
    (nothing := tmp_path / "nothing.pem").write_text("no certificate")
    own, other = authority.issue("one.internal"), authority.issue("two.internal")
    for options, message in {
        f"ssl_keyfile={own}": "ssl_keyfile needs ssl_certfile, too",
        f"ssl_certfile={nothing}": "ssl_certfile: cannot be used",
        f"ssl_ca_certs={nothing}": "ssl_ca_certs: cannot be used",
        f"ssl_certfile={own}&ssl_keyfile={other}": "ssl_certfile, ssl_keyfile: cannot be used",
    }.items():
        with pytest.raises(ValueError, match=message):
            redis_url.certificates(f"rediss://h?{options}")
    assert redis_url.certificates(f"rediss://h?ssl_certfile={own}&ssl_keyfile={own}") is not None


def test_sentinels_and_servers_have_credentials_and_tls_of_their_own() -> None:
    url = (
        "rediss+sentinel://gate:p%40ss@one,[::1]:26380/my%2Fmain/3?ssl_check_hostname=false"
        "&sentinel_username=watch&sentinel_password=o%26ther"
    )
    apart = taken_apart(url)
    assert apart.name == "my/main"
    assert redis_url.parts(url) | {"connection_class": None} == {
        "username": "gate",
        "password": "p@ss",
        "db": 3,
        "ssl_check_hostname": False,
        "connection_class": None,
    }
    assert [(each["host"], each["port"]) for each in map(redis_url.parts, apart.sentinels)] == [
        ("one", 26379),
        ("::1", 26380),
    ]
    for each in map(redis_url.parts, apart.sentinels):
        # TLS is that of the servers, unless the Sentinels' own is given; a password never is.
        assert (each["username"], each["password"], each["ssl_check_hostname"]) == ("watch", "o&ther", False)
    assert taken_apart(url + "&sentinel_ssl=no").sentinels[0].startswith("redis://one:26379?")


@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({"replicas": 2}, "replicas", "is for durability replica, and it is memory"),
        ({"replicas": 2, "durability": "aof"}, "replicas", "is for durability replica, and it is aof"),
        ({"timeout_ms": 100, "budget_ms": 150}, "budget_ms", "must not be more than timeout_ms (100)"),
    ],
)
def test_a_setting_of_redis_that_would_not_be_honoured_is_refused(
    settings: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        OfGateway.model_validate({"url": "redis://h", **settings})
    assert f"{message}" in str(refused.value)
    assert field in str(refused.value.errors()[0]["ctx"]["error"].faults)


@pytest.mark.parametrize("kind", ["gateway", "control"])
def test_config_check_names_the_option_of_the_url_that_is_not_honoured(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUOTAGATE_REDIS_URL", "rediss://h:6379/0?ssl_certfiles=secret.pem")
    for name in ("JWT_SECRET", "ADMIN_TOKEN"):
        monkeypatch.setenv(f"QUOTAGATE_{name}", "x" * 32)
    monkeypatch.setenv("QUOTAGATE_POSTGRES_DSN", "postgresql://h/d")
    result = CliRunner().invoke(app, ["config", "check", *_packaged(kind)])
    assert result.exit_code != 0
    assert "redis.url: option ssl_certfiles is not supported (did you mean ssl_certfile?)" in result.output


def _packaged(kind: str) -> list[str]:
    return [f"--{kind}-config", str(Path(__file__).parents[2] / "config" / f"{kind}.yaml")]
