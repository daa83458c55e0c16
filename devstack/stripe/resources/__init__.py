"""What the account holds, and what each call does. Importing a module registers its calls and timers."""

from devstack.stripe.resources import (
    catalogue,
    checkout,
    credits_,
    customers,
    invoice_items,
    invoices,
    meters,
    portal,
    schedules,
    subscriptions,
)

__all__ = [
    "catalogue",
    "checkout",
    "credits_",
    "customers",
    "invoice_items",
    "invoices",
    "meters",
    "portal",
    "schedules",
    "subscriptions",
]
