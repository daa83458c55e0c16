"""What the account holds, and what each call does. Importing a module registers its calls and timers."""

from devstack.stripe.resources import (
    checkout,
    credit_notes,
    customers,
    discounts,
    invoice_items,
    invoices,
    meters,
    portal,
    previews,
    products,
    refunds,
    schedules,
    subscriptions,
)

__all__ = [
    "checkout",
    "credit_notes",
    "customers",
    "discounts",
    "invoice_items",
    "invoices",
    "meters",
    "portal",
    "previews",
    "products",
    "refunds",
    "schedules",
    "subscriptions",
]
