"""Who is billed, and what was changed about them."""
