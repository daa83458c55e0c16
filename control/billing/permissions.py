"""What a restricted key must be allowed: no more than the product does. https://docs.stripe.com/keys#limit-access"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Permission:
    name: str
    """As Stripe's dashboard has it."""
    access: Literal["read", "write"]
    """write includes read."""
    resources: tuple[str, ...]
    """Of the API, below /v1, with all that is below them."""


REQUIRED_PERMISSIONS = (
    Permission("Charges and Refunds", "read", ("charges", "refunds")),
    Permission("Customers", "write", ("customers",)),  # credit
    Permission("Disputes", "read", ("disputes",)),
    Permission("Events", "read", ("events",)),
    Permission("Products", "write", ("products",)),
    Permission("Checkout Sessions", "write", ("checkout/sessions",)),
    Permission("Coupons", "write", ("coupons",)),
    Permission("Credit notes", "write", ("credit_notes",)),
    Permission("Customer portal", "write", ("billing_portal/configurations", "billing_portal/sessions")),
    Permission("Invoices", "read", ("invoices",)),
    Permission("Meters", "write", ("billing/meters",)),
    Permission("Meter events", "write", ("billing/meter_events",)),
    Permission("Prices", "write", ("prices",)),
    Permission("Promotion codes", "write", ("promotion_codes",)),
    Permission("Subscriptions", "write", ("subscriptions", "subscription_schedules")),
)
