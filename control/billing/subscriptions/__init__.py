"""A customer at Stripe becomes its organization's entitlement, invoices and entries here: by webhooks, and by looks."""
