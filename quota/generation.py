"""The text of a shard's generation: the Redis server on which, and the epoch in which, its counters were vouched for.

`<run id>:<epoch>:<nonce>`, in ASCII. Epochs come from Postgres and only grow, so of two servers the one with the higher
epoch was vouched for later. The form without an epoch, `<run id>:<nonce>`, is older and reads as epoch 0. While lost
counters are rebuilt the generation is `-<nonce>`, of no server.

Each shard has an epoch of its own: in a Cluster, one server is vouched for anew without the others.
"""

from collections.abc import Mapping, Sequence

REBUILDING = "-"
"""Begins the generation of a shard whose counters are being rebuilt."""


def made(server: str, epoch: int, nonce: str) -> str:
    return f"{server}:{epoch}:{nonce}"


def epoch_of(generation: bytes | str) -> int:
    text = generation.decode("ascii", "replace") if isinstance(generation, bytes) else generation
    words = text.split(":")
    return int(words[1]) if len(words) == 3 and words[1].isdigit() else 0


def epochs_on(server: bytes, generations: Mapping[int, bytes | None]) -> dict[int, int] | None:
    """By shard: the epoch in which it was vouched for on the server with this run id; None where one was not. A shard
    without a generation has no counters, and agrees with every server: it is left out."""
    own, epochs = server + b":", dict[int, int]()
    for shard, generation in generations.items():
        if generation is not None:
            if not generation.startswith(own):
                return None
            epochs[shard] = epoch_of(generation)
    return epochs


def epochs_text(epochs: Sequence[int]) -> str:
    """The epochs of all shards: one number where they are the same, else each shard's, with commas between."""
    return str(epochs[0]) if len(set(epochs)) == 1 else ",".join(map(str, epochs))


def epochs_from(text: str, shards: int) -> Sequence[int] | None:
    """The epochs of all shards; None where the text does not say them."""
    numbers = text.split(",")
    if not all(number.isascii() and number.isdigit() for number in numbers) or len(numbers) not in (1, shards):
        return None
    return [int(number) for number in numbers] * (shards if len(numbers) == 1 else 1)
