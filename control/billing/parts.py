"""What the endpoints of billing work with."""

from dataclasses import dataclass

import stripe

from control.billing.money import Money
from control.billing.overage.revisions import Overage
from control.billing.subscriptions.converge import Converger
from control.billing.subscriptions.inbox import Inbox
from control.settings.control_plane import Stripe as Settings


@dataclass(frozen=True, slots=True)
class Billing:
    settings: Settings
    client: stripe.StripeClient
    inbox: Inbox
    converger: Converger
    overage: Overage
    money: Money
