"""What another plan would have meant: recorded usage is decided again, request by request, and invoices are remade."""
