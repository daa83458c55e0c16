"""Subscriptions: what one consists of, its life, how it is changed, and the calls for that."""

from devstack.stripe.resources.subscriptions.calls import cancel, update
from devstack.stripe.resources.subscriptions.changes import change_items
from devstack.stripe.resources.subscriptions.items import next_end
from devstack.stripe.resources.subscriptions.life import end, end_trial, make

__all__ = ["cancel", "change_items", "end", "end_trial", "make", "next_end", "update"]
