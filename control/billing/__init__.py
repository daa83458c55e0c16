"""Stripe: what is sold, who pays, and what follows from it. The only importer of stripe."""
