"""Until when certificates are valid, for `quotagate doctor`."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

DAYS_MIN: Final = 14  # certificates are renewed a month before their end, those of some days aside

Until = Callable[[Path], datetime]


def judge_end(ends: float, now: float) -> tuple[bool, str]:
    """Whether a certificate that ends then (Unix time) is good for long enough, and what to say of it."""
    days, date = (ends - now) / 86_400, datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d")
    if days < 0:
        return False, f"ended on {date}"
    return days >= DAYS_MIN, f"ends on {date}, in {days:.0f} days"


def judge_file(file: Path, until: Until) -> tuple[bool, str]:
    """The same of a file. `until` reads it."""
    try:
        good, detail = judge_end(until(file).timestamp(), time.time())
    except (OSError, ValueError) as e:
        return False, f"{file} cannot be read: {e}"
    return good, f"{file} {detail}"
