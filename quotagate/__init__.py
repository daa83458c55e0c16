"""The command `quotagate`."""
