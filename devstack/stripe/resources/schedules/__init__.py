"""Subscription schedules: what a subscription will be, phase by phase, and the calls for that."""

from devstack.stripe.resources.schedules.calls import create, update

__all__ = ["create", "update"]
