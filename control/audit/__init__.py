"""The journal's hash chain: entries are sealed soon after their commit, and the whole can be verified."""
