"""Who may call the control API: admins with the admin token, organizations with their own tokens."""
