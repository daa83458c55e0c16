"""The Stripe double: Stripe Billing's API with a state, a clock that moves, and webhooks that are really sent."""
