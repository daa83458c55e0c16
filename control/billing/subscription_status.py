"""Stripe's words for the status of a subscription. https://docs.stripe.com/billing/subscriptions/overview"""

LIVE = frozenset({"trialing", "active", "past_due", "paused"})
"""Of a subscription that says what its organization may use. Others never began, or are over."""
OVER = frozenset({"canceled", "incomplete_expired"})
"""Of a subscription that comes to nothing any more."""
