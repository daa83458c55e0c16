"""What an admin looks at all day: tiles that are as the ledger is, live, and what to do about each kind of incident."""
