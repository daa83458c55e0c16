"""What the control plane asks gateways on `RECOVER` while it puts together what Redis has lost, and how reports end.

`[!]<nonce>[:<epoch>][ <shard>,<shard>…]`. With `!` takes wait until the shards are vouched for anew, and epochs up to
that number are over. Without shards it is about all of them. A report ends with `end <message>`; where the message says
an epoch, with `end <message> <worker>`, so that a worker that reports again on another connection counts once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

FENCE = "!"
END = "end"


@dataclass(frozen=True, slots=True)
class RecoveryMessage:
    nonce: str
    fences: bool = False
    """Nothing is taken before the shards are vouched for anew."""
    over: int = 0
    """Whatever holds this epoch or a lower one is believed no more; 0: it is not said."""
    shards: tuple[int, ...] | None = None
    """None: all of them."""

    @property
    def text(self) -> str:
        head = f"{FENCE if self.fences else ''}{self.nonce}{f':{self.over}' if self.over else ''}"
        return head if self.shards is None else f"{head} {','.join(map(str, self.shards))}"

    @classmethod
    def parse(cls, text: str) -> "RecoveryMessage":
        head, _, rest = text.partition(" ")
        nonce, _, over = head.removeprefix(FENCE).partition(":")
        shards = tuple(int(shard) for shard in rest.split(",") if shard.isdecimal()) if rest else None
        return cls(nonce, head.startswith(FENCE), int(over) if over.isdecimal() else 0, shards)

    def end(self, worker: str) -> str:
        """The last line of this worker's report."""
        return f"{END} {self.text} {worker}" if self.over else f"{END} {self.text}"

    def ended(self, items: Iterable[str]) -> tuple[int, frozenset[str]]:
        """Of whom these items are all: of how many workers that do not say their names, and of which others."""
        last, unnamed, workers = f"{END} {self.text}", 0, set[str]()
        for item in items:
            if item == last:
                unnamed += 1
            elif item.startswith(f"{last} "):
                workers.add(item.removeprefix(f"{last} "))
        return unnamed, frozenset(workers)
