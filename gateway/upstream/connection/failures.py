"""How an exchange with an upstream fails. The texts are for the log, not for the client."""


class UpstreamFailure(Exception):
    """An exchange with the upstream failed."""


class Unreachable(UpstreamFailure):
    """No byte was sent: the dial failed."""


class Tripped(UpstreamFailure):
    """No target is worth a try now: nothing was sent."""


class Overloaded(UpstreamFailure):
    """All connections are taken, and the queue is full or none came free in time: nothing was sent."""


class Broken(UpstreamFailure):
    """The connection broke, or the answer is no HTTP, after the request was (partly) sent."""


class TimedOut(UpstreamFailure):
    """The upstream was sent the request and fell silent."""
