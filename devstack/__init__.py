"""The embedded stack: real Valkey and PostgreSQL from wheels, a sample upstream, and the supervisor that runs them.

For one machine, for trying out and for tests. Production code never imports it.
"""
