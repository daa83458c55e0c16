"""Whether the Redis at the other end of the link is the one to believe (docs/decisions/0011).

The control plane vouches for a server in an epoch, which only grows. A gateway remembers the highest epoch that any of
its workers has seen, and believes none below it. A worker that has just come, or was away for long enough that others
may have been vouched for meanwhile, asks the control plane before it believes a server that only names itself.
"""

import mmap
import os
from collections.abc import Sequence
from fcntl import LOCK_EX, LOCK_UN, flock
from pathlib import Path
from struct import Struct

import structlog

from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals
from quota.generation import REBUILDING as _REBUILDING
from quota.generation import epoch_on

log = structlog.get_logger()

SURE_SECONDS = 1.0  # the control plane needs longer to vouch for another server (recovery.REJOIN_SECONDS)
ASK_AGAIN_SECONDS = 1.0
DOUBTED = b"-"

REBUILDING = _REBUILDING.encode()

_EPOCH = Struct("<q")


class SeenEpoch:
    """The highest epoch that this gateway has seen: one number for all workers that are given the same directory."""

    def __init__(self, directory: Path | None) -> None:
        if directory is None:
            self._file, self._shared = -1, mmap.mmap(-1, _EPOCH.size)
        else:
            self._file = os.open(directory / "epoch", os.O_RDWR | os.O_CREAT, 0o600)
            os.truncate(self._file, _EPOCH.size)
            self._shared = mmap.mmap(self._file, _EPOCH.size)

    @property
    def epoch(self) -> int:
        found: int = _EPOCH.unpack_from(self._shared)[0]
        return found

    def saw(self, epoch: int) -> None:
        if epoch > self.epoch:
            if self._file >= 0:
                flock(self._file, LOCK_EX)
            try:
                _EPOCH.pack_into(self._shared, 0, max(epoch, self.epoch))
            finally:
                if self._file >= 0:
                    flock(self._file, LOCK_UN)

    def close(self) -> None:
        self._shared.close()
        if self._file >= 0:
            os.close(self._file)


class VouchedServer:
    """What is known of the server of one connection after the other. Times are the loop's."""

    def __init__(self, seen: SeenEpoch, intervals: Intervals = DEFAULT_INTERVALS) -> None:
        self._seen = seen
        self._answer_seconds = intervals.vouching_answer_seconds
        self._server = b""  # its run id; empty: it does not tell
        self._names = os.urandom(8).hex()
        self._questions = 0
        self._asked_at: float | None = None
        """When this connection's question was put first; None: there is none."""
        self._ask_at = 0.0
        self._doubted = False
        self._sure_at = float("-inf")
        self.vouched = False
        self.epoch = 0

    @property
    def asking(self) -> bool:
        """The server names itself, and nobody has confirmed it yet."""
        return self._asked_at is not None

    @property
    def name(self) -> str:
        """Where the answer to the question is looked for."""
        return f"{self._names}-{self._questions}"

    def connected(self, server: bytes, generations: Sequence[bytes | None], now: float) -> None:
        """The first look on a new connection."""
        self._server, self._asked_at, self._doubted, self._ask_at = server, None, False, now
        self._questions += 1
        self.vouched = False
        if self._holds_nothing(generations):
            self.vouched = True
        elif self._is_believable(generations):
            if now - self._sure_at < SURE_SECONDS:
                self._believe(generations)
            else:
                self._asked_at = now

    def looked(self, generations: Sequence[bytes | None], answer: bytes | None, now: float) -> None:
        """Another look, while nobody has vouched."""
        if self._holds_nothing(generations):
            self.vouched = True
        elif not self._is_believable(generations):
            self._asked_at = None  # what is believable after this has come about under our eyes
        elif self._asked_at is None:
            self._believe(generations)
        elif answer is not None and answer.isdigit():
            if int(answer) == epoch_on(self._server, generations):
                self._believe(generations)
        elif answer == DOUBTED:
            self._doubted = True
        elif not self._doubted and now - self._asked_at >= self._answer_seconds:
            log.warning("nobody answers whether this redis is the one to believe, so it is believed")
            self._believe(generations)

    def question(self, generations: Sequence[bytes | None], now: float) -> str | None:
        """What to ask the control plane now, if anything: a server in an older epoch than was seen is told of, too."""
        behind = epoch_on(self._server, generations) is not None and not self._is_believable(generations)
        if now < self._ask_at or not (self.asking or behind):
            return None
        self._ask_at = now + ASK_AGAIN_SECONDS
        return f"{self.name} {self._seen.epoch}"

    def stands(self, generations: Sequence[bytes | None]) -> bool:
        """A look at a server that is believed. What is put together after a flush does not end that; it has the next
        epoch then."""
        if self._holds_nothing(generations) or any(held and held.startswith(REBUILDING) for held in generations):
            return True
        if not self._is_believable(generations):
            return False
        self._believe(generations)
        return True

    def fence(self) -> None:
        """The control plane puts together what was lost: nothing is believed until it is through."""
        self.vouched, self._asked_at, self._ask_at = False, None, 0.0

    def lost(self, read_at: float) -> None:
        """The connection has ended; its last reply came then."""
        if self.vouched:
            self._sure_at = read_at
        self.vouched = False

    def _holds_nothing(self, generations: Sequence[bytes | None]) -> bool:
        """Or does not tell who it is. After a flush nobody vouches for anything, but then no organization is there
        either, and the control plane vouches before it brings one back."""
        return not self._server or all(held is None for held in generations)

    def _is_believable(self, generations: Sequence[bytes | None]) -> bool:
        epoch = epoch_on(self._server, generations)
        return epoch is not None and epoch >= self._seen.epoch

    def _believe(self, generations: Sequence[bytes | None]) -> None:
        self.vouched, self._asked_at = True, None
        self.epoch = epoch_on(self._server, generations) or 0
        self._seen.saw(self.epoch)
