"""The `approvals` block of control.yaml: what needs a second person."""

from typing import Annotated, Literal

from pydantic import Field

from common.settings_file import SettingsModel

Approved = Literal[
    "cancel", "credit", "discount", "grant", "override", "refund", "resume", "shadow", "suspend", "switch"
]
"""Actions that can be set to need a second person."""


class Approvals(SettingsModel):
    """What one admin asks for, and another one approves. Never the same person: whoever signs in by a link, or calls by
    a token, counts as who made it."""

    actions: frozenset[Approved] = frozenset()
    """None by default. The endpoints that do the same at once, such as POST …/credits, refuse them."""
    above_minor: Annotated[int, Field(ge=0, le=10**12)] = 0
    """Credit and refunds of at most so much, in the currency's minor unit, need no second person. What the same person
    has given, or the organization was given, in the last `window_hours` counts with it."""
    window_hours: Annotated[float, Field(gt=0, le=8784)] = 24

    def need(self, action: str, amount_minor: int | None) -> bool:
        """Whether a second person is needed. `amount_minor`: of money that is moved; None: it is not known, or none
        is."""
        return action in self.actions and (amount_minor is None or amount_minor > self.above_minor)
