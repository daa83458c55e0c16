"""Activation codes and API keys."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from control.access.activation.administration import Administration, NewCode
from control.access.activation.store import Call as Filed
from control.access.keys import store
from control.access.keys.terms import GRACE_SECONDS_MAX, identity_of
from control.access.permissions import Permission
from control.access.publishing import enforce
from control.actions.action import Action, Call, Choices, Done, Look, Reversal
from control.actions.effect import Difference
from control.actions.failures import ChangedSince, NotPossible
from control.actions.parts import ActionParts
from control.db import Transactions
from control.documents import Body, Whole
from control.sql.keys import Key
from identity.api_key import generate, hash_of
from quota.access import KEY_ID_PATTERN

KEYS_CHOSEN_FROM = 100
DAY_SECONDS = 86_400

KeyId = Annotated[str, Field(pattern=KEY_ID_PATTERN)]


class CodeFields(Body):
    sites: Annotated[int, Whole, Field(ge=1, le=1_000_000)] = 1
    """How many sites it activates."""
    valid_days: Annotated[int, Whole, Field(ge=1, le=365)] | None = None
    """Left out: as the settings say."""
    product: Annotated[str, Field(max_length=100, pattern=r"^[!-~]*$")] = ""
    """Whoever activates must name it. Empty: any."""


class ActivationCode(Action[CodeFields]):
    name = "activation_code"
    title = "Make an activation code"
    about = "A code that activates sites of the organization. It is shown once."
    permission = Permission.ACTIVATION_WRITE
    fields = CodeFields

    async def change(self, parts: ActionParts, db: Transactions, call: Call[CodeFields], look: Look) -> Done:
        settings, fields = parts.activation.settings, call.fields
        valid_seconds = settings.code_seconds if fields.valid_days is None else fields.valid_days * DAY_SECONDS
        if valid_seconds > settings.code_seconds_max:
            raise NotPossible(f"No code is good for longer than {settings.code_seconds_max // DAY_SECONDS} days.")
        new = NewCode(fields.sites, valid_seconds, fields.product, (), (), None, call.reason)
        made = await Administration(db, parts.publisher).create_code(call.org, new, Filed(call.now, call.author))
        return Done(
            undo_says="Undo revokes the code. Sites that it has activated by then go on.",
            undo={"code": str(made.code.id)},
            content={"code": str(made.code.id), "handle": made.code.handle},
            shown={"Activation code": made.text},
            differences=(
                Difference(what="Sites that codes can still activate", before=None, after=f"{fields.sites} more"),
            ),
        )

    async def publish(self, parts: ActionParts, org: str) -> None:
        """A code is in the database only."""

    async def reverse(self, parts: ActionParts, db: Transactions, undo: Mapping[str, Any], call: Reversal) -> None:
        administration = Administration(db, parts.publisher)
        if not await administration.revoke_code(call.org, UUID(undo["code"]), Filed(call.now, call.author)):
            raise ChangedSince("The code is not there any more.")


async def _keys(parts: ActionParts, org: str) -> Choices:
    page = await store.page(parts.db, org, None, KEYS_CHOSEN_FROM, parts.clock(), state="active")
    return {"key": [(key.id, _called(key)) for key in page.rows]}


def _called(key: Key) -> str:
    return " ".join(filter(None, (key.name, f"({key.starts_with}…{key.last_four or ''})" if key.starts_with else "")))


class RollFields(Body):
    key: KeyId
    """The id of the key."""
    grace_seconds: Annotated[int, Whole, Field(ge=0, le=GRACE_SECONDS_MAX)] = DAY_SECONDS
    """The old key works for so long; 0: it is revoked at once."""


class RollKey(Action[RollFields]):
    name = "key_roll"
    title = "Roll an API key"
    about = "A new key that may do the same. It is shown once; the old one works for a while."
    permission = Permission.KEYS_WRITE
    fields = RollFields

    async def look(self, parts: ActionParts, call: Call[RollFields]) -> Look:
        return await _look_at_key(parts, call.org, call.fields.key)

    async def change(self, parts: ActionParts, db: Transactions, call: Call[RollFields], look: Look) -> Done:
        key: Key = look.content
        text = generate(parts.keys.prefix, key.environment)
        identity = identity_of(text, hash_of(text.encode()), key.environment, key.user_id)
        rolled = await store.roll(db, call.org, key.id, identity, call.fields.grace_seconds, call.now, call.author)
        ends = rolled.old.expires_at if call.fields.grace_seconds else "now"
        return Done(
            undo_says="It cannot be undone: the new key may be in use as soon as it is shown.",
            content={"old": rolled.old.id, "new": rolled.new.id},
            shown={"New key": text},
            differences=(Difference(what=f"The key {_called(key)} ends", before=_ends(key), after=str(ends)),),
        )

    async def publish(self, parts: ActionParts, org: str) -> None:
        await enforce(parts.publisher, org)

    async def choices(self, parts: ActionParts, org: str) -> Choices:
        return await _keys(parts, org)


class RevokeFields(Body):
    key: KeyId
    """The id of the key."""


class RevokeKey(Action[RevokeFields]):
    name = "key_revoke"
    title = "Revoke an API key"
    about = "For good: every request with the key is refused from then on, in every gateway."
    permission = Permission.KEYS_WRITE
    fields = RevokeFields

    async def look(self, parts: ActionParts, call: Call[RevokeFields]) -> Look:
        return await _look_at_key(parts, call.org, call.fields.key)

    async def change(self, parts: ActionParts, db: Transactions, call: Call[RevokeFields], look: Look) -> Done:
        key: Key = look.content
        if key.revoked_at is not None:
            raise NotPossible("The key is revoked already.")
        await store.revoke(db, call.org, key.id, call.now, call.author, call.reason)
        return Done(
            undo_says="It cannot be undone: a key is revoked for good. Make another one.",
            content={"key": key.id},
            differences=(Difference(what=f"The key {_called(key)} ends", before=_ends(key), after="now"),),
        )

    async def publish(self, parts: ActionParts, org: str) -> None:
        await enforce(parts.publisher, org)

    async def choices(self, parts: ActionParts, org: str) -> Choices:
        return await _keys(parts, org)


async def _look_at_key(parts: ActionParts, org: str, key_id: str) -> Look:
    """Raises KeyUnknown."""
    key = await store.find(parts.db, org, key_id)
    basis = [key.state, str(key.expires_at), key.rolled_to]
    used = [] if key.used_at is None else [f"The key was used last at {key.used_at:%Y-%m-%d %H:%M} UTC."]
    return Look(basis=basis, content=key, warnings=tuple(used))


def _ends(key: Key) -> str:
    return "never" if key.expires_at is None else str(key.expires_at)
