"""The issuer's public keys: read from a file or a URL, kept fresh, and never lost to an outage.

Sources: RFC 7517 (JWK sets), RFC 7518 (key sizes), RFC 7638 (thumbprints). PyJWT builds the keys, and takes any `use`
and `key_ops`; what a key may be used for is checked here.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

import httpx
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from gateway.settings import Auth

BODY_BYTES_MAX: Final = 256 * 1024
FETCH_TIMEOUT_SECONDS: Final = 5
REFRESH_SECONDS: Final = 600  # a tenth more or less, so that workers do not ask in step
RETRY_SECONDS: Final = 30  # after a failure, and between two fetches that unknown key ids ask for
RSA_BITS_MIN: Final = 2048  # RFC 7518 section 3.3

# What a key may verify when its own `alg` does not say, by type and curve.
ALGORITHMS: Final[dict[str, tuple[str, ...]]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC P-256": ("ES256",),
    "EC P-384": ("ES384",),
    "EC P-521": ("ES512",),
    "OKP Ed25519": ("EdDSA",),
}
THUMBPRINT_MEMBERS: Final = ("crv", "e", "kty", "n", "x", "y")

log = structlog.get_logger()


class KeySetUnavailable(Exception):
    """The key set cannot be read, or holds no usable key."""


class KeyUnusable(ValueError):
    """A key of the set cannot verify tokens here; the others can."""


@dataclass(slots=True, frozen=True)
class Key:
    id: str  # of the material and of what it may verify, so that a changed key is another key under the same `kid`
    kid: str | None
    algorithms: frozenset[str]  # that it may verify, and the settings accept
    material: Any  # what PyJWT's algorithm classes take


def usable_key(jwk: Any, accepted: Collection[str]) -> Key:
    """A public key of a set as a verifier of the accepted algorithms. Raises KeyUnusable."""
    if not isinstance(jwk, dict):
        raise KeyUnusable("it is no JSON object")
    kid, kty, crv, use, key_ops = (jwk.get(member) for member in ("kid", "kty", "crv", "use", "key_ops"))
    if not isinstance(kid, str | None):
        raise KeyUnusable("its kid is no text")
    if use not in (None, "sig"):
        raise KeyUnusable("its use is not sig")
    if key_ops is not None and not (isinstance(key_ops, list) and "verify" in key_ops):
        raise KeyUnusable("its key_ops do not hold verify")
    if "d" in jwk or "k" in jwk:
        raise KeyUnusable("it is a private or a symmetric key: whoever can read it, signs")
    able = ALGORITHMS.get("RSA" if kty == "RSA" else f"{kty} {crv}", ())
    algorithms = frozenset(name for name in able if name in accepted and jwk.get("alg") in (None, name))
    if not algorithms:
        raise KeyUnusable("it fits none of the accepted algorithms")
    try:
        material = PyJWK(jwk, algorithm=min(algorithms)).key
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise KeyUnusable(f"its members are no key ({type(error).__name__})") from None
    if kty == "RSA" and material.key_size < RSA_BITS_MIN:
        raise KeyUnusable(f"it is shorter than {RSA_BITS_MIN} bits")
    identity = [kid, sorted(algorithms), {member: jwk[member] for member in THUMBPRINT_MEMBERS if member in jwk}]
    digest = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Key(digest, kid, algorithms, material)


def parse_key_set(body: bytes, accepted: Collection[str]) -> list[Key]:
    """The usable keys of a JWK set; the others are told in the log. Raises KeySetUnavailable when none is left."""
    try:
        entries = json.loads(body)["keys"]
        if not isinstance(entries, list):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise KeySetUnavailable('it is no JWK set: {"keys": [...]}') from None
    keys = list(_usable_keys(entries, accepted))
    if not keys:
        raise KeySetUnavailable(f"it holds no key for {', '.join(sorted(accepted))}")
    return keys


def _usable_keys(entries: list[Any], accepted: Collection[str]) -> Iterator[Key]:
    for position, jwk in enumerate(entries):
        try:
            yield usable_key(jwk, accepted)
        except KeyUnusable as reason:
            log.warning("key skipped", position=position, reason=str(reason))


async def read_file(path: Path) -> bytes:
    """The bytes of a key file. Raises KeySetUnavailable."""
    try:
        body = await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise KeySetUnavailable(f"it cannot be read: {error.strerror}") from None
    if len(body) > BODY_BYTES_MAX:
        raise KeySetUnavailable(f"it is longer than {BODY_BYTES_MAX} bytes")
    return body


async def fetch(client: httpx.AsyncClient, url: str) -> bytes:
    """The body of the key set's answer. Raises KeySetUnavailable, for a redirect too: elsewhere is another issuer."""
    try:
        async with (
            asyncio.timeout(FETCH_TIMEOUT_SECONDS),
            client.stream("GET", url, headers={"accept-encoding": "identity"}, follow_redirects=False) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise KeySetUnavailable(f"its address answered {answer.status_code}")
            body = b""
            # Raw, since a small compressed body could be a large one.
            async for part in answer.aiter_raw():
                body += part
                if len(body) > BODY_BYTES_MAX:
                    raise KeySetUnavailable(f"it is longer than {BODY_BYTES_MAX} bytes")
            return body
    except (httpx.HTTPError, OSError, ValueError) as error:  # TimeoutError is an OSError
        raise KeySetUnavailable(f"it cannot be fetched: {type(error).__name__}") from error


class KeySet:
    """The keys that tokens are verified with. Made by the composition root; `start` and `close` frame its life."""

    def __init__(
        self,
        read: Callable[[], Awaitable[bytes]] | None,
        algorithms: Collection[str],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        keys: Sequence[Key] = (),
        client: httpx.AsyncClient | None = None,
    ) -> None:
        """`read` gives the JWK set's bytes; None for keys that only the settings can change."""
        self._read = read
        self._algorithms = algorithms
        self._client = client
        self._clock = clock
        self._sleep = sleep
        self._body = b""
        self._keys: tuple[Key, ...] = tuple(keys)
        self._by_kid: dict[str, tuple[Key, ...]] = {}
        self._callbacks: list[Callable[[Collection[str]], None]] = []
        self._attempted_at = self._read_at = float("-inf")
        self._reading: asyncio.Task[bool] | None = None
        self._keeping_fresh: asyncio.Task[None] | None = None

    @classmethod
    def of(
        cls,
        settings: Auth,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> Self:
        """The key set that the settings name: a file, a URL, or the one shared secret."""
        source = settings.jwks
        if settings.secret is not None:
            secret = settings.secret.get_secret_value().encode()
            key = Key("secret", None, frozenset(settings.algorithms), secret)
            return cls(None, settings.algorithms, clock, sleep, keys=[key])
        assert source is not None  # noqa: S101  the settings have a secret or a key set
        if "://" not in source:
            return cls(lambda: read_file(Path(source)), settings.algorithms, clock, sleep)
        client = httpx.AsyncClient(timeout=FETCH_TIMEOUT_SECONDS)
        return cls(lambda: fetch(client, source), settings.algorithms, clock, sleep, client=client)

    def find(self, kid: str | None) -> Sequence[Key]:
        """The keys of that id; all keys for a token that names none, and where there is one shared secret."""
        return self._keys if kid is None or self._read is None else self._by_kid.get(kid, ())

    def on_removed(self, callback: Callable[[Collection[str]], None]) -> None:
        """Call back with the ids of keys that are no longer believed."""
        self._callbacks.append(callback)

    @property
    def usable(self) -> bool:
        """Whether any token can be verified."""
        return bool(self._keys)

    @property
    def age_seconds(self) -> float | None:
        """Since the keys were last read; None when they never were, or are a secret of the settings."""
        return None if self._read_at == float("-inf") else self._clock() - self._read_at

    async def start(self) -> None:
        """Load the keys and keep them fresh. An issuer that is away is asked again and again; until then no token is
        believed."""
        if self._read is not None:
            fresh = await self.refresh()
            self._keeping_fresh = asyncio.create_task(self._keep_fresh(fresh))

    async def close(self) -> None:
        tasks = [task for task in (self._keeping_fresh, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def refresh_for(self, kid: str) -> bool:
        """Whether the key is known now. However many ask, for whatever ids: one fetch at a time, one in 30 seconds."""
        if not self.find(kid) and (self._reading or self._clock() - self._attempted_at >= RETRY_SECONDS):
            await self.refresh()
        return bool(self.find(kid))

    async def refresh(self) -> bool:
        """Read the keys again, now (SIGHUP); who asks meanwhile waits for the same read. False: the old ones stay."""
        if self._read is None:
            return True
        if self._reading is None:
            self._reading = asyncio.create_task(self._refresh(self._read))
            self._reading.add_done_callback(self._read_done)
        # One who stops waiting must not stop the read for the others.
        return await asyncio.shield(self._reading)

    async def _keep_fresh(self, fresh: bool) -> None:
        while True:
            pause = REFRESH_SECONDS if fresh else RETRY_SECONDS
            await self._sleep(pause * random.uniform(0.9, 1.1))  # noqa: S311  spreads load, guards nothing
            fresh = await self.refresh()

    def _read_done(self, _: asyncio.Task[bool]) -> None:
        self._reading = None

    async def _refresh(self, read: Callable[[], Awaitable[bytes]]) -> bool:
        self._attempted_at = self._clock()
        try:
            body = await read()
            if body != self._body:
                # In a thread: hundreds of keys take longer to build than a request may wait.
                self._install(await asyncio.to_thread(parse_key_set, body, self._algorithms))
                self._body = body
            self._read_at = self._clock()
        except KeySetUnavailable as error:
            log.error("key set not refreshed, the known keys serve on", reason=str(error), keys=len(self._keys))
            return False
        return True

    def _install(self, keys: list[Key]) -> None:
        removed = {key.id for key in self._keys} - {key.id for key in keys}
        by_kid: dict[str, tuple[Key, ...]] = {}
        for key in keys:
            if key.kid is not None:
                by_kid[key.kid] = (*by_kid.get(key.kid, ()), key)
        self._keys, self._by_kid = tuple(keys), by_kid
        log.info("keys installed", keys=len(keys), removed=len(removed))
        if removed:
            for callback in self._callbacks:
                callback(removed)
