"""The gateway's calls of the ledger in Redis leave here, and what it still owes is kept until it is paid."""
