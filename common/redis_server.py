"""What the answers of a Redis server mean: its INFO, and its refusals. Pure: the caller passes the server's words.

Each refusal has a course. Either a new connection may reach a server that can take (a primary was demoted, a password
was changed): then the caller dials again, with backoff. Or this server will recover (it is loading, its disk is full):
then the caller checks it until it has. A command that was refused in one of these words was not applied.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Course(Enum):
    DIAL_AGAIN = "a new connection may reach a server that can"
    LOOK_AGAIN = "this server will recover, and is checked until it has"


@dataclass(frozen=True, slots=True)
class Refused:
    """The server answers, but cannot take now."""

    word: str
    course: Course
    fault: str
    """A sentence for `/-/ready`, which clients can read."""


_A_REPLICA = "redis is a replica"
_A_CLUSTER = "redis is a node of a cluster"
_NOT_COVERED = "the cluster of redis does not cover all slots"
_NOT_LET_IN = "redis does not let the gateway in"

# https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors: an error's first word is its kind.
REFUSED: Final[Mapping[str, Refused]] = {
    refused.word: refused
    for refused in (
        Refused("READONLY", Course.DIAL_AGAIN, _A_REPLICA),
        Refused("MASTERDOWN", Course.DIAL_AGAIN, _A_REPLICA),
        Refused("CLUSTERDOWN", Course.DIAL_AGAIN, _A_CLUSTER),
        Refused("MOVED", Course.DIAL_AGAIN, _A_CLUSTER),
        Refused("ASK", Course.DIAL_AGAIN, _A_CLUSTER),
        Refused("CROSSSLOT", Course.DIAL_AGAIN, _A_CLUSTER),
        Refused("TRYAGAIN", Course.DIAL_AGAIN, _A_CLUSTER),
        Refused("NOAUTH", Course.DIAL_AGAIN, _NOT_LET_IN),
        Refused("WRONGPASS", Course.DIAL_AGAIN, _NOT_LET_IN),
        Refused("NOPERM", Course.DIAL_AGAIN, _NOT_LET_IN),
        Refused("LOADING", Course.LOOK_AGAIN, "redis loads its data"),
        Refused("BUSY", Course.LOOK_AGAIN, "redis is busy with a script"),
        Refused("MISCONF", Course.LOOK_AGAIN, "redis cannot write to its disk"),
        Refused("OOM", Course.LOOK_AGAIN, "redis has no memory left"),
        Refused("NOREPLICAS", Course.LOOK_AGAIN, "redis has fewer replicas than it must have"),
    )
}

# The error of a command inside a script follows the script's own words.
_FROM_SCRIPT: Final = re.compile(r"ERR [a-z]+: ")
# Errors of the kind ERR, which differ only in their text.
_BY_TEXT: Final = (
    ("this is a Redis Sentinel", Refused("", Course.DIAL_AGAIN, "redis is a Sentinel")),
    ("this is a node of a Redis Cluster", Refused("", Course.DIAL_AGAIN, _A_CLUSTER)),
    ("this is no node of a Redis Cluster", Refused("", Course.DIAL_AGAIN, "redis is no cluster")),
    ("the Redis Cluster does not cover all slots", Refused("", Course.DIAL_AGAIN, _NOT_COVERED)),
    ("but this Redis was installed with", Refused("", Course.DIAL_AGAIN, "redis was installed with other shards")),
    (" does not let the user ", REFUSED["NOAUTH"]),
    ("the Sentinels disagree", Refused("", Course.DIAL_AGAIN, "the sentinels of redis disagree")),
    (" Sentinels name the primary ", Refused("", Course.DIAL_AGAIN, "too few sentinels of redis answer")),
    (" is no Sentinel, ", Refused("", Course.DIAL_AGAIN, "what is to be a sentinel of redis is none")),
    (" knows no primary ", Refused("", Course.DIAL_AGAIN, "the sentinels of redis do not know the primary")),
    ("cannot be used with replica instances", REFUSED["READONLY"]),  # WAIT and WAITAOF
    ("can't run this command or subcommand", REFUSED["NOPERM"]),  # a script's command that its user may not call
    ("ACL failure in script", REFUSED["NOPERM"]),  # the same, from Redis 7
)


def refused(error: str) -> Refused | None:
    """What follows from an error; None where it is about one command and not about the server."""
    text = error.removeprefix(match[0]) if (match := _FROM_SCRIPT.match(error)) else error
    if (refusal := REFUSED.get(text.partition(" ")[0])) is not None:
        return refusal
    return next((refusal for words, refusal in _BY_TEXT if words in text), None)


Info = Mapping[str, object]
"""The fields of INFO, as redis-py has them or as `fields_of` does."""


def fields_of(info: bytes) -> dict[str, str]:
    """INFO's text as fields."""
    lines = info.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def unsupported(info: Info, *, of_cluster: bool = False) -> str | None:
    """Why this server can never hold the ledger, by INFO's section server; None where it can. `of_cluster`: the address
    is said to be that of a Cluster."""
    match info.get("redis_mode") or info.get("server_mode"):  # Redis' name of the field, and Valkey's
        case "sentinel":
            return "this is a Redis Sentinel, which holds no data: give redis+sentinel://HOST,HOST/NAME of the primary"
        case "standalone" if of_cluster:
            return "this is no node of a Redis Cluster (cluster-enabled no): give its address as redis://HOST"
        case "cluster" if not of_cluster:
            return "this is a node of a Redis Cluster: give the address of the Cluster, redis+cluster://HOST,HOST"
    return None


def evicting(info: Info) -> str | None:
    """Why this server may lose what is charged, by INFO's section memory; None where it keeps it."""
    policy, bound = info.get("maxmemory_policy", "noeviction"), int(str(info.get("maxmemory", 0)))
    if policy == "noeviction" or not bound:
        return None
    return f"Redis may remove counters when its memory is full ({policy}): set maxmemory-policy to noeviction"


def forgetting(info: Info, save: str | None) -> str | None:
    """Why a restart of this server forgets all that is charged, by INFO's section persistence and its setting `save`,
    which is None where it is not told; None where it keeps a file."""
    if str(info.get("aof_enabled", "1")) == "1" or save is None or save.strip():
        return None
    return (
        "Redis keeps nothing on its disk, so a restart forgets what was charged: set appendonly yes, or say "
        "redis.persistence: none where that is wanted"
    )


def not_a_primary(info: Info) -> str | None:
    """Why this server must not get takes now, by INFO's section replication; None where it may."""
    if info.get("role") == "slave":
        return f"READONLY this is a replica of {info.get('master_host')}:{info.get('master_port')}, not a primary"
    return None
