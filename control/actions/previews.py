"""What a preview goes by, as a text that comes back with the action. Pure."""

import json
import re
import secrets
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from control.actions.action import Action, Call
from control.actions.effect import Seen
from control.actions.failures import PreviewUnknown

PATTERN: Final = r"^[0-9a-f]{32}\.[0-9a-f]{16}\.(-|[0-9a-f]{32})\.[0-9a-f]{16}$"
_FORM: Final = re.compile(PATTERN)


@dataclass(frozen=True, slots=True)
class Preview:
    basis: str
    """A digest of what the effect was computed from."""
    wanted: str
    """A digest of organization, action and fields."""
    last: UUID | None
    """The last entry of the organization in the journal."""
    nonce: str
    """One preview, one action."""

    def __str__(self) -> str:
        return f"{self.basis}.{self.wanted}.{'-' if self.last is None else self.last.hex}.{self.nonce}"

    @classmethod
    def read(cls, text: str) -> "Preview":
        """Raises PreviewUnknown."""
        if _FORM.fullmatch(text) is None:
            raise PreviewUnknown(text[:80])
        basis, wanted, last, nonce = text.split(".")
        return cls(basis, wanted, None if last == "-" else UUID(last), nonce)


def new_preview(basis: str, wanted: str, last: UUID | None) -> Preview:
    return Preview(basis, wanted, last, secrets.token_hex(8))


def basis_of(seen: Seen, newest: str | None, looked_at: Any) -> str:
    """`newest`: the organization's last action; `looked_at`: what the action itself goes by."""
    state = asdict(seen.state)
    for name in ("version", "renew_at"):  # they move with what is no concern of the admin's, such as a key that is used
        del state[name]
    ahead = [(at, None if terms is None else asdict(terms)) for at, terms in seen.ahead]
    return _digest([state, ahead, newest, looked_at])[:32]


def wanted_of(action: Action[Any], call: Call[Any]) -> str:
    return _digest([call.org, action.name, call.fields.model_dump(mode="json")])[:16]


def _digest(content: Any) -> str:
    return sha256(json.dumps(content, default=str, sort_keys=True).encode()).hexdigest()
