"""Subscriptions: what one consists of, how it begins, is renewed, is changed and ends, and the calls for that."""

from devstack.stripe.resources.subscriptions import renewals
from devstack.stripe.resources.subscriptions.calls import cancel, update
from devstack.stripe.resources.subscriptions.changes import change_items
from devstack.stripe.resources.subscriptions.creation import make
from devstack.stripe.resources.subscriptions.endings import end
from devstack.stripe.resources.subscriptions.items import next_end
from devstack.stripe.resources.subscriptions.trials import move_trial_end

__all__ = ["cancel", "change_items", "end", "make", "move_trial_end", "next_end", "renewals", "update"]
