"""What every process of both planes needs: settings file, log, clock, sockets, connections to Redis.

The planes and the command line import it; it imports none of them.
"""

from compiled import finder

finder.install()  # before the first module that is compiled
