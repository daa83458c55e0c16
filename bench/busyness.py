"""Whether the machine had time left: without any, a latency is that of waiting for a core."""

from pathlib import Path

IDLE_LIMIT = 0.05  # of the machine's time


def machine_times() -> tuple[float, float] | None:
    """Idle time and all time of all cores, in ticks; None where there is no /proc."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return None
    return fields[3] + fields[4], sum(fields)


def idle_share(before: tuple[float, float] | None, after: tuple[float, float] | None) -> float | None:
    if before is None or after is None or after[1] == before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])
