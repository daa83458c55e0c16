"""Whether the Redis at the other end of the link is the one to believe (docs/decisions/0011).

The control plane vouches for a server in an epoch, which only grows. A gateway remembers, for each shard, the highest
epoch that any of its workers has seen, and believes none below it. A worker that has just come, or was away for long
enough that others may have been vouched for meanwhile, asks the control plane before it believes a server that only
names itself.
"""

import mmap
import os
from collections.abc import Mapping, Sequence
from enum import Enum
from fcntl import LOCK_EX, LOCK_UN, flock
from pathlib import Path
from struct import Struct

import structlog

from gateway.redis.way import Generations
from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals
from quota.generation import REBUILDING as _REBUILDING
from quota.generation import epochs_from, epochs_on, epochs_text
from quota.keys import SHARDS_MAX

log = structlog.get_logger()

SURE_SECONDS = 1.0  # to vouch for another server without our answer takes longer (control/reconcile/rejoining.py)
ASK_AGAIN_SECONDS = 1.0
UNCERTAIN_ANSWER = b"-"

REBUILDING = _REBUILDING.encode()

_EPOCHS = Struct(f"<{SHARDS_MAX}q")


class SeenEpochs:
    """The highest epoch of each shard that this gateway has seen: the same numbers for all workers that are given the
    same directory."""

    def __init__(self, directory: Path | None) -> None:
        if directory is None:
            self._file, self._shared = -1, mmap.mmap(-1, _EPOCHS.size)
        else:
            self._file = os.open(directory / "epochs", os.O_RDWR | os.O_CREAT, 0o600)
            os.truncate(self._file, _EPOCHS.size)
            self._shared = mmap.mmap(self._file, _EPOCHS.size)

    @property
    def by_shard(self) -> Sequence[int]:
        """Of SHARDS_MAX shards; 0: none was seen."""
        epochs: tuple[int, ...] = _EPOCHS.unpack_from(self._shared)
        return epochs

    def saw(self, epochs: Mapping[int, int]) -> None:
        """`epochs`: by shard."""
        seen = self.by_shard
        if all(seen[shard] >= epoch for shard, epoch in epochs.items()):
            return
        if self._file >= 0:
            flock(self._file, LOCK_EX)
        try:
            highest = [max(seen, epochs.get(shard, 0)) for shard, seen in enumerate(self.by_shard)]
            _EPOCHS.pack_into(self._shared, 0, *highest)
        finally:
            if self._file >= 0:
                flock(self._file, LOCK_UN)

    def close(self) -> None:
        self._shared.close()
        if self._file >= 0:
            os.close(self._file)


class Belief(Enum):
    """Of the server of one connection. `connected` begins anew; `fence` and the connection's end make it UNVOUCHED."""

    UNVOUCHED = "nobody vouches for it"
    ASKING = "it names itself, and the control plane has not answered yet whether it is the one to believe"
    UNCERTAIN = "the control plane has answered that it cannot tell yet"
    VOUCHED = "it is the one to believe"


class VouchedServer:
    """What is known of the server of one connection after the other. Times are the loop's."""

    __slots__ = (
        "_answer_seconds",
        "_ask_at",
        "_asked_at",
        "_names",
        "_questions",
        "_run_id",
        "_seen",
        "_shards",
        "_sure_at",
        "belief",
        "epochs",
        "moved",
    )

    def __init__(self, seen: SeenEpochs, shards: int, intervals: Intervals = DEFAULT_INTERVALS) -> None:
        self._seen = seen
        self._shards = shards
        self._answer_seconds = intervals.vouching_answer_seconds
        self._run_id = b""  # empty: the server does not tell it
        self._names = os.urandom(8).hex()
        self._questions = 0
        self._asked_at = 0.0  # when this connection's question was put first, while it is asked
        self._ask_at = 0.0  # when it may be put next
        self._sure_at = float("-inf")
        self.belief = Belief.UNVOUCHED
        self.moved = False
        """This connection leads to another server than the one before."""
        self.epochs: Mapping[int, int] = {}
        """By shard: in which the server was vouched for that is believed, or was."""

    @property
    def epoch(self) -> int:
        """The highest of `epochs`."""
        return max(self.epochs.values(), default=0)

    @property
    def asking(self) -> bool:
        """The server names itself, and nobody has confirmed it yet."""
        return self.belief in (Belief.ASKING, Belief.UNCERTAIN)

    @property
    def name(self) -> str:
        """Where the answer to the question is looked for."""
        return f"{self._names}-{self._questions}"

    def connected(self, run_id: bytes, generations: Generations, now: float) -> None:
        """The first look on a new connection."""
        self.moved = bool(self._run_id) and run_id != self._run_id
        self._run_id, self._ask_at = run_id, now
        self._questions += 1
        self.belief = Belief.UNVOUCHED
        if self._holds_nothing(generations):
            self.belief = Belief.VOUCHED
        elif self._is_believable(generations):
            if now - self._sure_at < SURE_SECONDS:
                self._believe(generations)
            else:
                self.belief, self._asked_at = Belief.ASKING, now

    def looked(self, generations: Generations, answer: bytes | None, now: float) -> None:
        """Another look, while nobody has vouched."""
        if self._holds_nothing(generations):
            self.belief = Belief.VOUCHED
        elif not self._is_believable(generations):
            self.belief = Belief.UNVOUCHED  # what is believable after this has come about under our eyes
        elif self.belief is Belief.UNVOUCHED:
            self._believe(generations)
        elif answer == UNCERTAIN_ANSWER:
            self.belief = Belief.UNCERTAIN
        elif answer is not None and (told := epochs_from(answer.decode("ascii", "replace"), self._shards)) is not None:
            if all(told[shard] == epoch for shard, epoch in (self._epochs_of(generations) or {}).items()):
                self._believe(generations)
        elif self.belief is Belief.ASKING and now - self._asked_at >= self._answer_seconds:
            log.warning("nobody answers whether this redis is the one to believe, so it is believed")
            self._believe(generations)

    def question(self, generations: Generations, now: float) -> str | None:
        """What to ask the control plane now, if anything. It hears of a server in an older epoch than was seen, too."""
        behind = self._epochs_of(generations) is not None and not self._is_believable(generations)
        if now < self._ask_at or not (self.asking or behind):
            return None
        self._ask_at = now + ASK_AGAIN_SECONDS
        return f"{self.name} {epochs_text(self._seen.by_shard[: self._shards])}"

    def is_still_vouched(self, generations: Generations) -> bool:
        """A look at a server that is believed. What is put together after a flush does not end that; it has the next
        epoch then."""
        rebuilding = any(held and held.startswith(REBUILDING) for held in generations.values())
        if rebuilding or self._holds_nothing(generations):
            return True
        if not self._is_believable(generations):
            return False
        self._believe(generations)
        return True

    def adopt(self, shard: int, generation: bytes | None) -> bool:
        """Whether a shard that has come to this server, which is vouched for, is vouched for there, too."""
        if self.belief is not Belief.VOUCHED:
            return False
        if self._run_id and (generation is None or not self._is_believable({shard: generation})):
            return False
        self.epochs = {**self.epochs, **(self._epochs_of({shard: generation}) or {})}
        self._seen.saw(self.epochs)
        return True

    def leave(self, shard: int) -> None:
        """A shard that this server does not hold any more."""
        self.epochs = {each: epoch for each, epoch in self.epochs.items() if each != shard}

    def fence(self) -> None:
        """The control plane puts together what was lost: nothing is believed until it is through."""
        self.belief, self._ask_at = Belief.UNVOUCHED, 0.0

    def put_aside(self, epochs: Mapping[int, int]) -> None:
        """By shard: the epochs up to these are over, whichever server holds them."""
        self._sure_at = float("-inf")  # somebody else is vouched for sooner than in SURE_SECONDS
        self._seen.saw({shard: epoch + 1 for shard, epoch in epochs.items()})

    def lost(self, read_at: float) -> None:
        """The connection has ended; its last reply came then."""
        if self.belief is Belief.VOUCHED:
            self._sure_at = read_at
        self.belief = Belief.UNVOUCHED

    def _holds_nothing(self, generations: Generations) -> bool:
        """Or does not tell who it is. After a flush nobody vouches for anything, but then no organization is there
        either, and the control plane vouches before it brings one back."""
        return not self._run_id or all(held is None for held in generations.values())

    def _is_believable(self, generations: Generations) -> bool:
        epochs = self._epochs_of(generations)
        if epochs is None:
            return False
        seen = self._seen.by_shard
        return all(epoch >= seen[shard] for shard, epoch in epochs.items())

    def _believe(self, generations: Generations) -> None:
        self.belief = Belief.VOUCHED
        self.epochs = self._epochs_of(generations) or {}
        self._seen.saw(self.epochs)

    def _epochs_of(self, generations: Generations) -> dict[int, int] | None:
        return epochs_on(self._run_id, generations)
