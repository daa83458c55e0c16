"""One connection to an upstream carries one request after the other here: what is sent, what is read, how it ends."""
