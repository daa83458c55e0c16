"""Several regions in simulated time, over the real rules of leases."""
