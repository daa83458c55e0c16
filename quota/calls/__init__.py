"""Calls of the Lua scripts as values: for each script a builder of its keys and arguments, and a decoder of its reply.

No I/O: the control plane sends the calls with quota/ledger.py, the gateway with its own link.
"""
