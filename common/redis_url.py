"""The address of Redis in the settings: both planes read it in the same way, and ignore no part of it.

redis-py ignores parts of a URL that it does not know; this module refuses them. TLS options have the meaning that
redis-py gives them: its own context is made of them.
"""

import difflib
import re
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import AfterValidator, SecretStr
from redis.asyncio.connection import RedisSSLContext, parse_url
from redis.exceptions import RedisError

from common import redis_sentinel_url
from common.certificates import Certificates, system_authorities
from common.redis_cluster import address as cluster_address
from common.redis_cluster.address import is_cluster
from common.redis_sentinel_url import SentinelUrl, is_sentinel, taken_apart

SCHEMES: Final = ("redis", "rediss", "unix")
_CHOICES: Final = {
    "ssl_cert_reqs": ("required", "optional", "none"),
    "ssl_check_hostname": ("true", "false", "yes", "no", "1", "0"),  # redis-py takes any other word for true
}
_FILES: Final = ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs")
TLS_OPTIONS: Final = (
    *_FILES,
    *_CHOICES,
    "ssl_ca_path",
    "ssl_ca_data",
    "ssl_ciphers",
    "ssl_min_version",
    "ssl_password",
    "ssl_include_verify_flags",
    "ssl_exclude_verify_flags",
)
OPTIONS: Final = ("db", "username", "password", *TLS_OPTIONS)
_FORM: Final = (
    "must be redis://host[:port], rediss://host[:port] or unix:///path; or redis+sentinel://host,host/NAME; or "
    f"{cluster_address.FORM}"
)
_OF_SENTINELS: Final = ("username", "password", *TLS_OPTIONS)
_DATABASE: Final = re.compile(r"/?|/[0-9]{1,9}")


def options(url: str) -> dict[str, Any]:
    """The parts of the URL, by redis-py's names. Behind Sentinels they lack host and port; of a Cluster they are those
    of the first server. Raises ValueError, which says what is wrong with it."""
    find = _faults_by_sentinels if is_sentinel(url) else _faults_of_cluster if is_cluster(url) else _faults
    if faults := list(find(url)):
        raise ValueError("; ".join(faults))
    return parts(url)


def parts(url: str) -> dict[str, Any]:
    """`options` of a URL that was checked before: its files may have been removed since."""
    if is_cluster(url):
        return dict(parse_url(cluster_address.taken_apart(url).plain))
    if not is_sentinel(url):
        return dict(parse_url(url))
    of_servers = dict(parse_url(taken_apart(url).servers))
    del of_servers["host"]
    return of_servers


def has_tls(url: str) -> bool:
    """Of the servers that hold data."""
    return urlsplit(url).scheme.startswith("rediss")


def plain_urls(url: str) -> Iterator[str]:
    """It itself, or what it is taken apart into where Sentinels are asked, or a Cluster: each has credentials and
    certificates."""
    if is_cluster(url):
        yield cluster_address.taken_apart(url).plain
        return
    if not is_sentinel(url):
        yield url
        return
    apart = taken_apart(url)
    yield apart.servers
    yield from apart.sentinels[:1]  # what they need is the same for all of them


def certificates(url: str) -> Certificates[ssl.SSLContext] | None:
    """The certificates of its connections, which follow their files; None without TLS. Raises ValueError."""
    given = options(url)
    if not has_tls(url):
        return None
    files = [Path(given[name]) for name in (*_FILES, "ssl_ca_path") if name in given]
    return Certificates(lambda: _context(given), [*files, *system_authorities()])


def _context(given: dict[str, Any]) -> ssl.SSLContext:
    tls = {name.removeprefix("ssl_"): given[name] for name in TLS_OPTIONS if name in given}
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        return RedisSSLContext(**{"cert_reqs": "required", "check_hostname": True, "password": "", **tls}).get()
    except (OSError, ValueError, RedisError) as e:
        names = ", ".join(name for name in TLS_OPTIONS if name in given)
        raise ValueError(f"{names}: cannot be used: {e}") from None


def _faults_by_sentinels(url: str) -> Iterator[str]:
    try:
        apart: SentinelUrl = taken_apart(url)
    except ValueError as e:
        yield str(e)
        return
    yield from _faults(apart.servers)
    of_sentinels = apart.sentinels[0]
    for name, _ in parse_qsl(urlsplit(of_sentinels).query, keep_blank_values=True):
        if name in OPTIONS and name not in _OF_SENTINELS:
            yield f"option {redis_sentinel_url.PREFIX}{name} is not supported"
    yield from (f"of the Sentinels: {fault}" for fault in _faults(of_sentinels))


def _faults_of_cluster(url: str) -> Iterator[str]:
    try:
        plain = cluster_address.taken_apart(url).plain
    except ValueError as e:
        yield str(e)
        return
    yield from _faults(plain)
    if "db" in dict(parse_qsl(urlsplit(plain).query, keep_blank_values=True)):
        yield "a Redis Cluster has no databases: leave db out"


def _faults(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:  # a port that is no number, a bracket that is not closed
        yield _FORM
        return
    if parts.scheme not in SCHEMES or (parts.scheme != "unix" and (not host or port == 0)):
        yield _FORM
        return
    yield from _path_faults(parts)
    given = parse_qsl(parts.query, keep_blank_values=True, separator="&")
    yield from _repeated(parts, [name for name, _ in given])
    yield from _option_faults(parts.scheme, given)
    try:
        parse_url(url)
    except ValueError as e:
        yield str(e)


def _path_faults(parts: SplitResult) -> Iterator[str]:
    if parts.fragment:
        yield "must have no fragment (#)"
    if parts.scheme == "unix":
        if parts.hostname or not parts.path.startswith("/"):
            yield "the path of a socket must be absolute: unix:///path"
    elif not _DATABASE.fullmatch(parts.path):
        yield "the path must be the number of a database: /0"


def _repeated(parts: SplitResult, names: Sequence[str]) -> Iterator[str]:
    """What is given as an option and in another part of the URL, too."""
    if "db" in names and parts.scheme != "unix" and parts.path not in ("", "/"):
        yield "db is given twice: in the path and as an option"
    for name, value in (("username", parts.username), ("password", parts.password)):
        if name in names and value is not None:
            yield f"{name} is given twice: before the host and as an option"


def _option_faults(scheme: str, given: Sequence[tuple[str, str]]) -> Iterator[str]:
    names = [name for name, _ in given]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            yield f"{name} is given twice"
        elif name not in OPTIONS:
            yield _unknown(name)
        elif name in TLS_OPTIONS and scheme != "rediss":
            yield f"{name} can only be used with rediss://"
        elif fault := _unusable(name, dict(given)[name]):
            yield f"{name} {fault}"
    if "ssl_keyfile" in names and "ssl_certfile" not in names:
        yield "ssl_keyfile needs ssl_certfile, too"


def _unusable(name: str, value: str) -> str | None:
    """What is wrong with the value of an option; None where it can be used."""
    if not value:
        return "is empty"
    if (choices := _CHOICES.get(name)) is not None and value not in choices:
        return f"must be {', '.join(choices[:-1])} or {choices[-1]}"
    if name in _FILES and not Path(value).is_file():
        return f"is not a file: {value}"
    if name == "ssl_ca_path" and not Path(value).is_dir():
        return f"is not a directory: {value}"
    if name == "db" and not (value.isascii() and value.isdigit()):
        return "must be the number of a database"
    return None


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, OPTIONS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(OPTIONS)}; timeouts are separate settings"
    return f"option {name} is not supported ({hint})"


def _usable(url: SecretStr) -> SecretStr:
    given = url.get_secret_value()
    certificates(given)
    for each in plain_urls(given):
        certificates(each)
    return url


RedisUrl = Annotated[SecretStr, AfterValidator(_usable)]
"""redis://, rediss:// (TLS) or unix://; Sentinels: redis+sentinel://, rediss+sentinel://; a Cluster: redis+cluster://,
rediss+cluster://."""
