"""What an action is, and the values that its steps hand on."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from control.access.permissions import Permission
from control.access.publishing import announce
from control.actions.effect import Difference, InvoiceEffect
from control.actions.failures import NotUndoable
from control.actions.parts import ActionParts
from control.db import Connection, Transactions
from control.documents import Body
from control.journal import Author

F = TypeVar("F", bound=Body)
Choices = Mapping[str, Sequence[tuple[str, str]]]
"""By the name of a field: its values, and what people read."""


@dataclass(frozen=True, slots=True)
class Call(Generic[F]):
    """What an admin wants, and when."""

    org: str
    fields: F
    reason: str
    author: Author
    now: float
    approved: bool = False
    """A second person has agreed."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is known before anything changes, apart from what our database says."""

    basis: Any = None
    """What the admin decides by: if it is another one later, the action is not done."""
    content: Any = None
    """For the action itself."""
    amount_minor: int | None = None
    """Money that is moved."""
    invoice: InvoiceEffect = field(default_factory=InvoiceEffect.none)
    differences: tuple[Difference, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a change."""

    undo_says: str
    """How it can be undone, or why it cannot."""
    undo: Mapping[str, Any] | None = None
    """What undoing needs; None: it cannot be undone."""
    content: Mapping[str, Any] = field(default_factory=dict)
    """For the journal. It holds no secret."""
    shown: Mapping[str, str] = field(default_factory=dict)
    """Secrets that the admin sees this once."""
    differences: tuple[Difference, ...] = ()
    warnings: tuple[str, ...] = ()


class Action(ABC, Generic[F]):
    """`change` is done in one transaction, for the preview, too, where the transaction is rolled back: so the effect
    that is shown is the one that it has. What is beyond our database is looked at by `look`, and done by `perform`
    after the commit."""

    name: ClassVar[str]
    title: ClassVar[str]
    about: ClassVar[str]
    permission: ClassVar[Permission]
    fields: ClassVar[type[Body]]
    outside: ClassVar[bool] = False
    """`perform` and `reverse_outside` have something to do."""

    async def look(self, parts: ActionParts, call: Call[F]) -> Look:
        return Look()

    @abstractmethod
    async def change(self, parts: ActionParts, db: Transactions, call: Call[F], look: Look) -> Done: ...

    async def perform(self, parts: ActionParts, call: Call[F], look: Look, key: str) -> Mapping[str, Any]:
        """What came of it, for the journal. `key`: a repeated call with it does nothing more."""
        return {}

    async def foresee(self, parts: ActionParts, connection: Connection, call: Call[F], look: Look) -> None:
        """For the preview only: makes the organization what it is when Stripe has done its part. It is rolled back."""

    async def publish(self, parts: ActionParts, org: str) -> None:
        """After the commit. Where it cannot be published now, the publisher does it later."""
        await announce(parts.publisher, org)

    async def look_back(self, parts: ActionParts, undo: Mapping[str, Any], call: "Reversal") -> None:
        """Before it is undone. Raises ChangedSince where what the action left is not beyond our database any more."""

    async def reverse(self, parts: ActionParts, db: Transactions, undo: Mapping[str, Any], call: "Reversal") -> None:
        """Raises ChangedSince where what the action left is not there any more, NotUndoable."""
        raise NotUndoable(f"{self.title} cannot be undone.")

    async def reverse_outside(self, parts: ActionParts, undo: Mapping[str, Any], call: "Reversal", key: str) -> None:
        """After the commit."""

    async def currency(self, parts: ActionParts, org: str, given: Mapping[str, str]) -> str | None:
        """Of the amounts that its fields hold. `given`: the fields as texts, not checked yet. None: it is not known."""
        return None

    async def choices(self, parts: ActionParts, org: str) -> Choices:
        """Values to choose from, where there are few. Raises StripeAway, StripeRefused."""
        return {}


@dataclass(frozen=True, slots=True)
class Reversal:
    """An action that is undone, by whom and when."""

    org: str
    reason: str
    author: Author
    now: float
