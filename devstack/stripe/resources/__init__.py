"""What the account holds, and what each call does. Importing a module registers its calls and timers."""

from devstack.stripe.resources import (
    checkout,
    credits_,
    customers,
    invoice_items,
    invoices,
    meters,
    portal,
    products,
    schedules,
    subscriptions,
)

__all__ = [
    "checkout",
    "credits_",
    "customers",
    "invoice_items",
    "invoices",
    "meters",
    "portal",
    "products",
    "schedules",
    "subscriptions",
]
