"""What each process of either plane needs to run: its settings file, its log, its clock, its sockets, its way to Redis.

It serves the planes and the command line, and imports none of them.
"""
