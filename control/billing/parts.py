"""What the endpoints of billing work with, and how it is put together."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import stripe

from common.clock import Clock
from control.billing.client import opened
from control.billing.money import Bound, Money
from control.billing.overage.revisions import Overage
from control.billing.subscriptions.converge import Converger
from control.billing.subscriptions.inbox import Inbox
from control.db import Database
from control.entitlements.publish import Publisher
from control.settings.control_plane import Settings as ControlSettings
from control.settings.control_plane import Stripe as Settings


@dataclass(frozen=True, slots=True)
class Billing:
    settings: Settings
    client: stripe.StripeClient
    inbox: Inbox
    converger: Converger
    overage: Overage
    money: Money


async def open_billing(
    stack: AsyncExitStack,
    control_settings: ControlSettings,
    db: Database,
    publisher: Publisher,
    lag_seconds: Callable[[], Awaitable[float]],
    clock: Clock,
    attempts_max: int,
    bound: Bound,
) -> Billing | None:
    """None where nothing is sold. `lag_seconds`: of the writer. `attempts_max`: of an event of Stripe's. `bound`: how
    much one person gives alone."""
    settings, notify = control_settings.stripe, control_settings.notifications is not None
    if not settings.enabled:
        return None
    client = await stack.enter_async_context(opened(settings))
    overage = Overage(db, client, settings, lag_seconds, clock)
    converger = Converger(db, client, publisher, overage, settings, notify, clock)
    inbox = Inbox(db, converger, clock, attempts_max)
    return Billing(settings, client, inbox, converger, overage, Money(db, client, clock, bound))
