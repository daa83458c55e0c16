"""The text of a shard's generation: the Redis server on which, and the epoch in which, its counters were vouched for.

`<run id>:<epoch>:<nonce>`, in ASCII. Epochs come from Postgres and only grow, so of two servers the one with the higher
epoch was vouched for later. The form without an epoch, `<run id>:<nonce>`, is older and reads as epoch 0. While lost
counters are rebuilt the generation is `-<nonce>`, of no server.
"""

from collections.abc import Iterable

REBUILDING = "-"
"""Begins the generation of a shard whose counters are being rebuilt."""


def made(server: str, epoch: int, nonce: str) -> str:
    return f"{server}:{epoch}:{nonce}"


def epoch_of(generation: bytes | str) -> int:
    text = generation.decode("ascii", "replace") if isinstance(generation, bytes) else generation
    words = text.split(":")
    return int(words[1]) if len(words) == 3 and words[1].isdigit() else 0


def epoch_on(server: bytes, generations: Iterable[bytes | None]) -> int | None:
    """The epoch in which all these shards were vouched for on the server with this run id: the lowest where they
    differ, None where one was not. A shard without a generation has no counters, and agrees with every server."""
    epochs = []
    for generation in generations:
        if generation is not None:
            if not generation.startswith(server + b":"):
                return None
            epochs.append(epoch_of(generation))
    return min(epochs, default=0)
