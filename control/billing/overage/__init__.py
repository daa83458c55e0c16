"""What was used beyond a plan: reported to Stripe, each unit once, and checked whether it was billed."""
