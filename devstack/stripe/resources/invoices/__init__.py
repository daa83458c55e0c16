"""Invoices: what is on one, what it adds up to, when it is final, how it is paid, and the calls for that."""

from devstack.stripe.resources.invoices import calls
from devstack.stripe.resources.invoices.closing import void
from devstack.stripe.resources.invoices.drafts import draft, pending_items, put_on, take_off
from devstack.stripe.resources.invoices.finalization import finalize
from devstack.stripe.resources.invoices.lines import line
from devstack.stripe.resources.invoices.lookups import Usage, open_of, paying_intent, subscription_of
from devstack.stripe.resources.invoices.payment import attempt
from devstack.stripe.resources.invoices.timers import finalize_later

__all__ = [
    "Usage",
    "attempt",
    "calls",
    "draft",
    "finalize",
    "finalize_later",
    "line",
    "open_of",
    "paying_intent",
    "pending_items",
    "put_on",
    "subscription_of",
    "take_off",
    "void",
]
