"""The pages of messages: Stripe's events, notifications of the vendor's own system, and what waits for Clerk."""
