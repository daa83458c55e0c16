"""What the endpoints of billing work with."""

from dataclasses import dataclass

import stripe

from control.billing.converge import Converger
from control.billing.inbox import Inbox
from control.billing.money import Money
from control.billing.overage import Overage
from control.settings import Stripe as Settings


@dataclass(frozen=True, slots=True)
class Billing:
    settings: Settings
    client: stripe.StripeClient
    inbox: Inbox
    converger: Converger
    overage: Overage
    money: Money
