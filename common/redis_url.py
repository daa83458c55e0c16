"""The address of Redis in the settings: one reading for both planes, and none of it is ignored.

redis-py reads a URL's parts and passes over what it does not know; whatever would be passed over is refused here. TLS
options mean what they mean for redis-py, whose own context is made of them.
"""

import difflib
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, SecretStr
from redis.asyncio.connection import RedisSSLContext, parse_url
from redis.exceptions import RedisError

from common.certificates import Certificates, system_authorities

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
_DATABASE: Final = re.compile(r"/?|/[0-9]{1,9}")


def options(url: str) -> dict[str, Any]:
    """The URL's parts, by redis-py's names. Raises ValueError, which names what is wrong with it."""
    faults = list(_faults(url))
    if faults:
        raise ValueError("; ".join(faults))
    return dict(parse_url(url))


def parts(url: str) -> dict[str, Any]:
    """`options` of a URL that was read before: its files may have gone since."""
    return dict(parse_url(url))


def certificates(url: str) -> Certificates | None:
    """What connections are secured with, by the files as they are when one is made; None without TLS. Raises
    ValueError."""
    told = options(url)
    if urlsplit(url).scheme != "rediss":
        return None
    files = [Path(told[name]) for name in (*_FILES, "ssl_ca_path") if name in told]
    return Certificates(lambda: _context(told), [*files, *system_authorities()])


def _context(told: dict[str, Any]) -> ssl.SSLContext:
    given = {name.removeprefix("ssl_"): told[name] for name in TLS_OPTIONS if name in told}
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        return RedisSSLContext(**{"cert_reqs": "required", "check_hostname": True, "password": "", **given}).get()
    except (OSError, ValueError, RedisError) as e:
        names = ", ".join(name for name in TLS_OPTIONS if name in told)
        raise ValueError(f"{names}: cannot be used: {e}") from None


def _faults(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:  # a port that is no number, a bracket that is not closed
        yield "must be redis://host[:port], rediss://host[:port] or unix:///path"
        return
    if parts.scheme not in SCHEMES or (parts.scheme != "unix" and (not host or port == 0)):
        yield "must be redis://host[:port], rediss://host[:port] or unix:///path"
        return
    if parts.fragment:
        yield "must have no fragment (#)"
    if parts.scheme == "unix":
        if host or not parts.path.startswith("/"):
            yield "a socket's path must be absolute: unix:///path"
    elif not _DATABASE.fullmatch(parts.path):
        yield "the path must be a database's number: /0"
    given = parse_qsl(parts.query, keep_blank_values=True, separator="&")
    named = [name for name, _ in given]
    if "db" in named and parts.scheme != "unix" and parts.path not in ("", "/"):
        yield "db is given twice: in the path and as an option"
    for name, value in (("username", parts.username), ("password", parts.password)):
        if name in named and value is not None:
            yield f"{name} is given twice: before the host and as an option"
    for name in dict.fromkeys(named):
        if named.count(name) > 1:
            yield f"{name} is given twice"
        elif name not in OPTIONS:
            yield _unknown(name)
        elif name in TLS_OPTIONS and parts.scheme != "rediss":
            yield f"{name} is for rediss:// alone"
        elif fault := _unusable(name, dict(given)[name]):
            yield f"{name} {fault}"
    if "ssl_keyfile" in named and "ssl_certfile" not in named:
        yield "ssl_keyfile is without its ssl_certfile"
    try:
        parse_url(url)
    except ValueError as e:
        yield str(e)


def _unusable(name: str, value: str) -> str | None:
    """What is wrong with the value of an option."""
    if not value:
        return "is empty"
    if (choices := _CHOICES.get(name)) is not None and value not in choices:
        return f"must be {', '.join(choices[:-1])} or {choices[-1]}"
    if name in _FILES and not Path(value).is_file():
        return f"names no file: {value}"
    if name == "ssl_ca_path" and not Path(value).is_dir():
        return f"names no directory: {value}"
    if name == "db" and not (value.isascii() and value.isdigit()):
        return "must be a database's number"
    return None


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, OPTIONS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(OPTIONS)}; times are settings of their own"
    return f"option {name} is not honoured ({hint})"


def _usable(url: SecretStr) -> SecretStr:
    certificates(url.get_secret_value())
    return url


RedisUrl = Annotated[SecretStr, AfterValidator(_usable)]
"""redis://, rediss:// (TLS) or unix://."""
