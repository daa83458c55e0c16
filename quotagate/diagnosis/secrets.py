"""Who may read secrets and change settings: the modes of files."""

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, SecretStr

from quotagate.diagnosis.finding import Finding, Level

if TYPE_CHECKING:
    from control.settings.control_plane import Settings
    from gateway.settings.root import GatewaySettings

CHARACTERS_MIN: Final = 6  # a shorter text is in a file by chance
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def of_settings(what: str, file: Path, settings: BaseModel) -> Finding:
    """`what`: whose settings they are. A secret that is written in them, and not named by a variable of the
    environment, is for nobody else to read."""
    mode, text = stat.S_IMODE(file.stat().st_mode), file.read_text()
    written = {secret for secret in secrets_of(settings) if len(secret) >= CHARACTERS_MIN and secret in text}
    shown = f"{file} (mode {mode:04o})"
    if mode & stat.S_IWOTH:
        return Finding(Level.WRONG, what, f"{shown} may be changed by everybody: chmod o-w")
    if written and mode & stat.S_IROTH:
        return Finding(Level.WRONG, what, f"{shown} holds secrets, and may be read by everybody: chmod o-r")
    if written:
        return Finding(Level.NOTE, what, f"{shown} holds secrets: name variables of the environment in their place")
    return Finding(Level.GOOD, what, f"{shown} holds no secret in plain text")


def of_files(files: Sequence[Path], open_bits: int = stat.S_IRWXO) -> Iterator[Finding]:
    """Of files that hold nothing but secrets. `open_bits`: which rights nobody may have to them."""
    for file in dict.fromkeys(files):
        try:
            mode = stat.S_IMODE(file.stat().st_mode)
        except OSError as e:
            yield Finding(Level.WRONG, "secret file", f"{file} cannot be read: {e.strerror}")
            continue
        if mode & open_bits:
            closed = f"{mode & ~open_bits:04o}"
            yield Finding(Level.WRONG, "secret file", f"{file} (mode {mode:04o}) is open to others: chmod {closed}")
        else:
            yield Finding(Level.GOOD, "secret file", f"{file} (mode {mode:04o})")


def secrets_of(value: Any) -> Iterator[str]:
    """Of a URL, its password: the rest of it is none."""
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        password = urlsplit(text).password if "://" in text else text
        if password:
            yield password
            yield unquote(password)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets_of(getattr(value, name))
    elif isinstance(value, dict):
        for each in value.values():
            yield from secrets_of(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from secrets_of(each)


def key_files_of_gateway(settings: "GatewaySettings") -> list[Path]:
    served = settings.listen.tls.certificates if settings.listen.tls else ()
    shown = [upstream.tls for upstream in settings.upstreams.values() if upstream.tls is not None]
    files = [each.key_file or each.cert_file for each in served]
    files += [file for each in shown if (file := each.key_file or each.cert_file) is not None]
    return files + _of_redis(settings.redis.url)


def key_files_of_control(settings: "Settings") -> list[Path]:
    of_postgres = [path for dsn in settings.postgres.dsns for path in parse_qs(urlsplit(dsn).query).get("sslkey", [])]
    return [*_of_redis(settings.redis.url), *map(Path, dict.fromkeys(of_postgres))]


def _of_redis(url: SecretStr) -> list[Path]:
    from common import redis_url

    plain = map(redis_url.parts, redis_url.plain_urls(url.get_secret_value()))
    files = [Path(parts.get("ssl_keyfile") or parts["ssl_certfile"]) for parts in plain if "ssl_certfile" in parts]
    return list(dict.fromkeys(files))
