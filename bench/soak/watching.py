"""How much each process holds, over time. `slope` and what follows from it are pure."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.harness import resident_bytes

MIB = 1024 * 1024
WARM_UP = 0.25  # of the time: caches fill, and the allocator finds its size
SLOPE_MIB_PER_HOUR = 1.0
DESCRIPTORS_MORE = 2
JUDGED_SECONDS = 1800.0
"""A shorter run says little of growth: a page more or less is a MiB an hour, and pools of connections still fill."""


@dataclass
class Series:
    """Of one process."""

    seconds: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def add(self, seconds: float, pid: int) -> None:
        """Raises OSError where the process has ended."""
        resident, descriptors = resident_bytes(pid), len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - it counts
        self.seconds.append(seconds)
        self.resident.append(resident)
        self.descriptors.append(descriptors)


@dataclass(frozen=True, slots=True)
class Growth:
    """After the warm-up."""

    mib_per_hour: float
    first_mib: float
    last_mib: float
    descriptors_first: float
    descriptors_last: float


def thinned(series: Series, most: int = 360) -> Series:
    """At most so many points, evenly chosen: for a report."""
    step = -(-len(series.seconds) // most) or 1
    return Series(series.seconds[::step], series.resident[::step], series.descriptors[::step])


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The median of the slopes between pairs of points (Theil and Sen): a spike does not turn it."""
    pairs = [(ys[j] - ys[i]) / (xs[j] - xs[i]) for i in range(len(xs)) for j in range(i + 1, len(xs)) if xs[j] > xs[i]]
    return median(pairs) if pairs else 0.0


def growth(series: Series, points: int = 60) -> Growth | None:
    """None where too little was seen. The slope is that of the medians of so many equal parts of the time."""
    if not series.seconds:
        return None
    begins = series.seconds[0] + WARM_UP * (series.seconds[-1] - series.seconds[0])
    kept = [at for at, seconds in enumerate(series.seconds) if seconds >= begins]
    if len(kept) < 4:
        return None
    size = max(1, len(kept) // points)
    parts = [kept[at : at + size] for at in range(0, len(kept), size)]
    xs = [median(series.seconds[at] for at in part) / 3600 for part in parts]
    ys = [median(series.resident[at] for at in part) / MIB for part in parts]
    quarter = max(1, len(kept) // 4)
    first, last = kept[:quarter], kept[-quarter:]
    return Growth(
        slope(xs, ys),
        median(series.resident[at] for at in first) / MIB,
        median(series.resident[at] for at in last) / MIB,
        median(series.descriptors[at] for at in first),
        median(series.descriptors[at] for at in last),
    )


def of_gateway(name: str, supervisor: int, children: Sequence[int]) -> dict[str, int]:
    """Its processes by names for people. `children`: the oldest first; one of them is multiprocessing's helper."""
    serving = [pid for pid in children if "resource_tracker" not in _command(pid)]
    found = {f"{name}, supervisor": supervisor}
    for kind, pid in zip(("worker", "standby"), serving, strict=False):  # a settings file may say that nobody stands by
        found[f"{name}, {kind}"] = pid
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
