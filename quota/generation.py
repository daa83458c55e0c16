"""What a shard's generation says: which Redis server the counters were vouched for on, and in which epoch.

`<run id>:<epoch>:<nonce>`, in ASCII. Epochs come from Postgres and only grow, so of two servers that were both vouched
for, the one with the higher epoch came later. Before there were epochs it was `<run id>:<nonce>`, which reads as epoch
0. While what was lost is put back it is `-<nonce>`, of no server.
"""

from collections.abc import Iterable

REBUILDING = "-"
"""Begins a generation while it is being made."""


def made(server: str, epoch: int, nonce: str) -> str:
    return f"{server}:{epoch}:{nonce}"


def epoch_of(generation: bytes | str) -> int:
    text = generation.decode("ascii", "replace") if isinstance(generation, bytes) else generation
    words = text.split(":")
    return int(words[1]) if len(words) == 3 and words[1].isdigit() else 0


def epoch_on(server: bytes, generations: Iterable[bytes | None]) -> int | None:
    """The epoch in which all these shards were vouched for on the server with this run id, the lowest where they
    differ; None where one was not. A shard without a generation holds nothing, and agrees with everything."""
    epochs = []
    for held in generations:
        if held is not None:
            if not held.startswith(server + b":"):
                return None
            epochs.append(epoch_of(held))
    return min(epochs, default=0)
