"""How long takes took, as gateways tell it: the form on the wire of what one worker counted in about a minute.

An entry of the stream `qg:check-times` holds `<minute> <bucket>:<count>,…`: the minute since 1970, and how many takes
took as many microseconds as have so many bits (bucket 10: 512 to 1023).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

FIELD: Final = b"t"
"""The stream entry's only field."""
ENTRIES_MAX: Final = 10_000
"""In Redis; what nobody fetched is then replaced by what is newer."""
BUCKETS: Final = 47
_TEXT: Final = re.compile(r"([0-9]{1,10}) ([0-9]{1,2}:[0-9]{1,15}(?:,[0-9]{1,2}:[0-9]{1,15})*)")


class CheckTimesMalformed(ValueError):
    """The text is no count of takes."""


@dataclass(frozen=True, slots=True)
class CheckTimes:
    minute: int
    """Since 1970."""
    counts: Mapping[int, int]
    """By bucket: how many takes."""


def encode(times: CheckTimes) -> str:
    counts = ",".join(f"{bucket}:{count}" for bucket, count in times.counts.items())
    return f"{times.minute} {counts}"


def decode(text: str) -> CheckTimes:
    """Raises CheckTimesMalformed."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise CheckTimesMalformed("it is no minute and its counts")
    counts: dict[int, int] = {}
    for each in match[2].split(","):
        bucket, _, count = each.partition(":")
        if int(bucket) >= BUCKETS or int(bucket) in counts:
            raise CheckTimesMalformed("a bucket is there twice, or is none")
        counts[int(bucket)] = int(count)
    return CheckTimes(int(match[1]), counts)
