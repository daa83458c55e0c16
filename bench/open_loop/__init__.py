"""Latencies at fixed rates, counted from when each request was due and not from when it could be sent."""
