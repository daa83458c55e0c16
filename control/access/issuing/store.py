"""Signing keys in Postgres: each change is made under a lock, and journaled. A private key is never in the journal."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from common.clock import Clock
from control import journal, sql
from control.access.issuing import key_life, key_pairs
from control.access.issuing.key_life import KeyLife, KeyState, StoredKey
from control.access.issuing.key_pairs import Algorithm, KeyPair
from control.access.issuing.master_keys import MasterKeys, SealBroken
from control.db import Connection, Database
from control.journal import Author, Change
from control.moments import moment, rfc3339
from control.settings.issuing import Issuing
from control.sql.signing_keys import SigningKey

DAY_SECONDS: Final = 86_400


class SigningKeyUnknown(Exception):
    """No signing key has this id."""


class RotationUnderWay(Exception):
    """A new key is published already, and signs from the moment in the message on."""


class SigningKeyUnreadable(Exception):
    """A signing key does not open with the master keys of the settings."""

    def __init__(self, key_id: str, reason: SealBroken | ValueError) -> None:
        super().__init__(f"the signing key {key_id} cannot be read: {reason}")


@dataclass(frozen=True, slots=True)
class OpenedKey:
    id: str
    algorithm: Algorithm
    public_jwk: dict[str, Any]
    private_key: key_pairs.PrivateKey = field(repr=False)


class SigningKeys:
    def __init__(self, db: Database, settings: Issuing, clock: Clock) -> None:
        self._db = db
        self._settings = settings
        self._master_keys = MasterKeys(settings.master_keys)
        self._clock = clock

    async def read(self) -> list[StoredKey]:
        """Raises StoreUnavailable."""
        async with self._db.connection() as connection:
            return await _stored(connection)

    def open(self, key: StoredKey) -> OpenedKey:
        """The public part is made of the private one, and not read: who can write to the database, and has no master
        key, adds no key that tokens are verified with. Raises SigningKeyUnreadable."""
        try:
            private = key_pairs.private_key_of(self._master_keys.open(key.sealed or b"", key.id))
        except (SealBroken, ValueError) as e:
            raise SigningKeyUnreadable(key.id, e) from None
        return OpenedKey(key.id, key_pairs.algorithm_of(private), key_pairs.public_jwk_of(private), private)

    async def allow_token_seconds(self) -> None:
        """Has each key that is in use know how long its tokens may live by these settings."""
        async with self._db.connection() as connection:
            await sql.signing_keys.raise_token_seconds(connection, token_seconds=self._settings.token_seconds)

    async def rotate_if_due(self, author: Author) -> StoredKey | None:
        """The new key. Several processes may ask at once: one of them makes it."""
        if not self._is_due(await self.read(), self._clock()):
            return None
        async with self._db.transaction() as connection:
            await sql.signing_keys.lock(connection)
            keys, now = await _stored(connection), self._clock()
            return await self._add(connection, keys, now, author) if self._is_due(keys, now) else None

    async def rotate(self, author: Author) -> StoredKey:
        """A new key, which signs when everybody has it. Raises RotationUnderWay."""
        async with self._db.transaction() as connection:
            await sql.signing_keys.lock(connection)
            keys, now = await _stored(connection), self._clock()
            for waiting in key_life.of_state(key_life.lives(keys, now), KeyState.WAITING):
                raise RotationUnderWay(rfc3339(waiting.key.signs_from_s))
            return await self._add(connection, keys, now, author)

    async def retire(self, key_id: str, author: Author) -> StoredKey:
        """Takes a key out of the key set now, and destroys its private part; if it signs, another one does from now on.
        Again: nothing changes. Raises SigningKeyUnknown."""
        async with self._db.transaction() as connection:
            await sql.signing_keys.lock(connection)
            keys, now = await _stored(connection), self._clock()
            life = next((life for life in key_life.lives(keys, now) if life.key.id == key_id), None)
            if life is None:
                raise SigningKeyUnknown(key_id)
            if life.state is KeyState.RETIRED:
                return life.key
            retired = await self._retire(connection, life, now, author)
            if life.state is KeyState.SIGNING:
                rest = [key for key in keys if key.id != key_id]
                await self._have_another_sign(connection, rest, now, author)
            return retired

    async def retire_leaving(self, author: Author) -> list[str]:
        """Destroys what no token needs any more. Returns the keys' ids."""
        if not key_life.of_state(key_life.lives(await self.read(), self._clock()), KeyState.LEAVING):
            return []
        async with self._db.transaction() as connection:
            await sql.signing_keys.lock(connection)
            now = self._clock()
            leaving = key_life.of_state(key_life.lives(await _stored(connection), now), KeyState.LEAVING)
            for life in leaving:
                await self._retire(connection, life, now, author)
        return [life.key.id for life in leaving]

    async def reencrypt(self, author: Author) -> list[str]:
        """Seals with the first master key what another one has sealed; the keys' ids. Raises SigningKeyUnreadable, and
        nothing has changed then."""
        async with self._db.transaction() as connection:
            await sql.signing_keys.lock(connection)
            now, changed = self._clock(), []
            for key in await _stored(connection):
                if key.sealed is None or self._master_keys.is_sealed_by_first(key.sealed):
                    continue
                try:
                    private = self._master_keys.open(key.sealed, key.id)
                except SealBroken as e:
                    raise SigningKeyUnreadable(key.id, e) from None
                await sql.signing_keys.seal(connection, id=key.id, sealed=self._master_keys.seal(private, key.id))
                changed.append(key.id)
            changes = [Change("signing_key.resealed", None, None, {"key": key_id}) for key_id in changed]
            await journal.record(connection, author, now, changes)
        return changed

    def _is_due(self, keys: Sequence[StoredKey], now: float) -> bool:
        return key_life.is_due(key_life.lives(keys, now), self._settings.rotate_days * DAY_SECONDS, now)

    async def _have_another_sign(
        self, connection: Connection, keys: Sequence[StoredKey], now: float, author: Author
    ) -> None:
        waiting = key_life.of_state(key_life.lives(keys, now), KeyState.WAITING)
        if waiting:
            await sql.signing_keys.begin_signing(connection, id=waiting[0].key.id, at=moment(int(now)))
        else:
            await self._add(connection, (), now, author)

    async def _add(self, connection: Connection, keys: Sequence[StoredKey], now: float, author: Author) -> StoredKey:
        in_use = any(key.retired_s is None for key in keys)
        wait = key_life.overlap_seconds(self._settings.jwks_max_age_seconds) if in_use else 0
        pair = key_pairs.generate(self._settings.algorithm)
        key = self._sealed(pair, now, int(now) + wait)
        await sql.signing_keys.insert(
            connection,
            id=key.id,
            algorithm=key.algorithm,
            public_jwk=key.public_jwk,
            sealed=key.sealed or b"",
            created_at=moment(key.created_s),
            signs_from=moment(key.signs_from_s),
            token_seconds=key.token_seconds,
        )
        await journal.record(connection, author, now, [Change("signing_key.created", None, None, _journaled(key))])
        return key

    def _sealed(self, pair: KeyPair, now: float, signs_from_s: float) -> StoredKey:
        sealed = self._master_keys.seal(pair.private_key, pair.id)
        return StoredKey(
            pair.id, pair.algorithm, pair.public_jwk, sealed, now, signs_from_s, self._settings.token_seconds, None
        )

    async def _retire(self, connection: Connection, life: KeyLife, now: float, author: Author) -> StoredKey:
        await sql.signing_keys.retire(connection, id=life.key.id, at=moment(now))
        before = {**_journaled(life.key), "state": life.state.value}
        after = {"key": life.key.id, "state": KeyState.RETIRED.value}
        await journal.record(connection, author, now, [Change("signing_key.retired", None, before, after)])
        return replace(life.key, sealed=None, retired_s=now)


async def _stored(connection: Connection) -> list[StoredKey]:
    return [_key_of(row) for row in await sql.signing_keys.all_keys(connection)]


def _key_of(row: SigningKey) -> StoredKey:
    return StoredKey(
        id=row.id,
        algorithm=cast("Algorithm", row.algorithm),
        public_jwk=row.public_jwk,
        sealed=row.sealed,
        created_s=row.created_at.timestamp(),
        signs_from_s=row.signs_from.timestamp(),
        token_seconds=row.token_seconds,
        retired_s=None if row.retired_at is None else row.retired_at.timestamp(),
    )


def _journaled(key: StoredKey) -> dict[str, Any]:
    return {"key": key.id, "algorithm": key.algorithm, "signs_from": rfc3339(key.signs_from_s)}
