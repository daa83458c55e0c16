"""How principals stand: whether a verified token or an API key may be used now, read from Redis.

A principal is looked at when it is met first, and again when a take says that its organization has another version.
What was read is kept together with that version, which each take says again: so nothing that is kept here admits a
request after it has changed.

Requests that wait for the same look share it. No look is a task: Redis and the control plane call back.
"""

from collections import Counter
from enum import Enum, auto
from math import inf
from typing import Any, Final, Protocol

import structlog

from common.transitions import after
from gateway.decision.naming import Naming
from gateway.ledger.hydration import HydrationClient
from gateway.ledger.ledger_link import ShardLink
from gateway.redis.connection import Lost
from identity.claims import Claims
from identity.refusals import ApiKeyPresented, Reason, TokenRefused
from identity.tokens import TokenVerifier
from quota import keys
from quota.access import KeyRecord, KeyState, MarkKind, RecordMalformed, marks_of, version_word
from quota.calls.encoded import principal_bulk
from quota.calls.look import LOOK_REPLIES, IndexMiss, Look, decode_look, decode_owner, look_bytes, owner_bytes

log = structlog.get_logger()

ROUNDS_MAX: Final = 8  # of looking and taking: what changes more often than that is not waited for

_REVOKED: Final = {
    MarkKind.TOKEN: Reason.TOKEN_REVOKED,
    MarkKind.SESSION: Reason.SESSION_REVOKED,
    MarkKind.USER: Reason.USER_REVOKED,
    MarkKind.SITE: Reason.SITE_REVOKED,
    MarkKind.ORGANIZATION: Reason.ORGANIZATION_REVOKED,
}


class Unread(Enum):
    """Why nobody knows how a principal stands."""

    AWAY = "away"
    """Redis does not answer."""
    INDEX = "index"
    """Redis has forgotten API keys, and is being told of them again."""
    PENDING = "pending"
    """The organization was not loaded in time."""


class LookWaiter(Protocol):
    """Who asks how a principal stands. It is answered once, perhaps before the question returns."""

    def on_good(self, claims: Claims) -> None:
        """It may be used: its `take_words` are those of a take."""

    def on_refused(self, claims: Claims | None, refused: TokenRefused) -> None:
        """`claims`: whom it speaks for; None for a key that nobody knows."""

    def on_unread(self, why: Unread) -> None: ...


class LookLink(Protocol):
    """The way to Redis."""

    def of(self, shard: int) -> ShardLink: ...


class LookState(Enum):
    OWNER = auto()
    """It is asked whose key it is."""
    STANDING = auto()
    """Version, record and marks are asked for."""
    LOADING = auto()
    """Redis does not know the organization: the control plane is asked for it."""
    OVER = auto()
    """All that waited are answered."""


class LookEvent(Enum):
    OWNED = auto()
    """The key's organization is known."""
    MORE = auto()
    """The record names a user, whose mark was not asked for."""
    UNKNOWN = auto()
    """Redis does not know the organization."""
    LOADED = auto()
    ENDED = auto()


TRANSITIONS: Final = {
    (LookState.OWNER, LookEvent.OWNED): LookState.STANDING,
    (LookState.OWNER, LookEvent.ENDED): LookState.OVER,
    (LookState.STANDING, LookEvent.MORE): LookState.STANDING,
    (LookState.STANDING, LookEvent.UNKNOWN): LookState.LOADING,
    (LookState.STANDING, LookEvent.ENDED): LookState.OVER,
    (LookState.LOADING, LookEvent.LOADED): LookState.STANDING,
    (LookState.LOADING, LookEvent.ENDED): LookState.OVER,
}


class Looks:
    """Those of one worker."""

    def __init__(
        self, link: LookLink, hydrator: HydrationClient, verifier: TokenVerifier, naming: Naming, shards: int
    ) -> None:
        self.link = link
        self.hydrator = hydrator
        self.verifier = verifier
        self.naming = naming
        self.shards = shards
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """How many looks, by what was looked at (`token`, `key`) and what came of it."""
        self.stale = 0
        """Takes that said another version of their organization than the published one."""
        self._of_claims: dict[int, _Look] = {}  # by identity: all requests of a principal share its claims
        self._of_keys: dict[bytes, _Look] = {}  # that are not remembered, by digest

    def look(self, claims: Claims, waiter: LookWaiter) -> None:
        """At a token, or a key that is remembered."""
        if (look := self._of_claims.get(id(claims))) is not None:
            look.waiting.append((waiter, b""))
            return
        if not claims.path:
            self.naming.name(claims)
        look = self._of_claims[id(claims)] = _Look(self, claims, LookState.STANDING)
        look.waiting.append((waiter, b""))
        look.ask_standing()

    def find(self, key: ApiKeyPresented, waiter: LookWaiter) -> None:
        """Whether there is such a key, and how it stands. One that may be used is remembered."""
        if (look := self._of_keys.get(key.digest16)) is not None:
            look.waiting.append((waiter, key.remembered_as))
            return
        nobody = Claims("", None, inf, "", api_key=key.digest16)
        look = self._of_keys[key.digest16] = _Look(self, nobody, LookState.OWNER)
        look.waiting.append((waiter, key.remembered_as))
        look.ask_owner(key.digest16)

    def forget(self, look: "_Look") -> None:
        """It is over: whoever asks from now on begins another one."""
        claims = look.claims
        if self._of_claims.get(id(claims)) is look:
            del self._of_claims[id(claims)]
        elif claims.api_key is not None:
            del self._of_keys[claims.api_key]


class _Look:
    """One, and all that wait for it."""

    __slots__ = ("_hydrated", "_looks", "_state", "_user", "claims", "waiting")

    def __init__(self, looks: Looks, claims: Claims, state: LookState) -> None:
        self._looks = looks
        self._state = state
        self._hydrated = False
        self._user = claims.user  # whose mark is asked for
        self.claims = claims
        self.waiting: list[tuple[LookWaiter, bytes]] = []
        """And what a key that is found is remembered as."""

    # Asking

    def ask_owner(self, digest16: bytes) -> None:
        link = self._looks.link.of(keys.shard_of_digest(digest16, self._looks.shards))
        link.read(owner_bytes(digest16, self._looks.shards), 1, self._on_owner)

    def _on_owner(self, replies: Any) -> None:
        if isinstance(replies, Lost):
            self._leave_open(Unread.AWAY)
            return
        owner = decode_owner(replies[0])
        if owner is IndexMiss.NO_KEY:
            self._refuse(None, Reason.KEY_UNKNOWN)
        elif owner is IndexMiss.INCOMPLETE:
            self._leave_open(Unread.INDEX)
        else:
            self.claims.org = str(owner)
            self._state = after(TRANSITIONS, self._state, LookEvent.OWNED)
            self.ask_standing()

    def ask_standing(self) -> None:
        claims = self.claims
        link = self._looks.link.of(keys.shard_of(claims.org, self._looks.shards))
        marks = marks_of(claims.token_id, claims.session, self._user, claims.site)
        asked = look_bytes(claims.org, claims.api_key, self._looks.shards, marks)

        def on_replies(replies: Any) -> None:
            if isinstance(replies, Lost):
                self._leave_open(Unread.AWAY)
                return
            published, values = replies
            try:
                self._on_standing(decode_look(published, values, claims.api_key, marks))
            except RecordMalformed as e:
                log.error("key not readable", org=claims.org, reason=str(e))
                self._leave_open(Unread.AWAY)

        link.read(asked, LOOK_REPLIES, on_replies)

    def _on_standing(self, look: Look) -> None:
        claims, record = self.claims, look.record
        if look.version is None:
            self._load()
            return
        claims.shadow = look.shadow
        if claims.api_key is not None and record is None:
            self._refuse(None, Reason.KEY_UNKNOWN)
        elif record is not None and record.user != self._user:
            self._user = record.user
            self._state = after(TRANSITIONS, self._state, LookEvent.MORE)
            self.ask_standing()
        else:
            if record is not None:
                self._looks.naming.name(claims, record)
            if (reason := self._reason_against(look, record)) is not None:
                self._refuse(claims, reason)
            else:
                self._admit(look.version, record)

    def _reason_against(self, look: Look, record: KeyRecord | None) -> Reason | None:
        if record is not None:
            if record.state is KeyState.REVOKED:
                return Reason.KEY_REVOKED
            if record.state is KeyState.DISABLED:
                return Reason.KEY_DISABLED
            if record.expires_s is not None and record.expires_s <= self._looks.verifier.clock():
                return Reason.KEY_EXPIRED
        # A mark with a time is about tokens: the keys that it means are revoked themselves.
        mark = look.refused_by(inf if record is not None else self.claims.issued_at)
        return None if mark is None else _REVOKED[mark.kind]

    def _load(self) -> None:
        """Redis does not know the organization."""
        if self._hydrated:
            self._leave_open(Unread.PENDING)
            return
        self._hydrated = True
        self._state = after(TRANSITIONS, self._state, LookEvent.UNKNOWN)
        self._looks.hydrator.ask(self.claims.org, self._on_loaded)

    def _on_loaded(self, published: bool) -> None:
        if published:
            self._state = after(TRANSITIONS, self._state, LookEvent.LOADED)
            self.ask_standing()
        else:
            self._leave_open(Unread.PENDING)

    # Answering

    def _admit(self, version: int, record: KeyRecord | None) -> None:
        claims = self.claims
        limits = "" if record is None else record.limits
        claims.version = version
        claims.take_words = principal_bulk(claims.path, version_word(version, (limits,)))
        restricted = record is not None and bool(record.scopes or record.networks)
        claims.words = b"" if restricted else claims.take_words
        if record is not None:
            claims.expires_at = inf if record.expires_s is None else float(record.expires_s)
        for waiter, remembered_as in self._end("good"):
            if remembered_as:
                self._looks.verifier.remember(remembered_as, claims)
            waiter.on_good(claims)

    def _refuse(self, claims: Claims | None, reason: Reason) -> None:
        self.claims.take_words = self.claims.words = b""
        for waiter, _ in self._end(reason.value):
            waiter.on_refused(claims, TokenRefused(reason))

    def _leave_open(self, why: Unread) -> None:
        for waiter, _ in self._end(why.value):
            waiter.on_unread(why)

    def _end(self, outcome: str) -> list[tuple[LookWaiter, bytes]]:
        self._state = after(TRANSITIONS, self._state, LookEvent.ENDED)
        looks = self._looks
        looks.forget(self)
        looks.outcomes["token" if self.claims.api_key is None else "key", outcome] += 1
        waiting, self.waiting = self.waiting, []
        return waiting
