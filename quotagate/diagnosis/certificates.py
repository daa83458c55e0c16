"""Until when certificates are valid: those in files, and those that servers show."""

import asyncio
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from common.certificate_dates import Until
from quotagate.diagnosis.finding import Finding, judged

DAYS_MIN: Final = 14  # certificates are renewed a month before their end, those of some days aside
CONNECT_SECONDS: Final = 5.0


def judge_end(ends: float, now: float) -> tuple[bool, str]:
    """Whether a certificate that ends then (Unix time) is good for long enough, and what to say of it."""
    days, date = (ends - now) / 86_400, datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d")
    if days < 0:
        return False, f"ended on {date}"
    return days >= DAYS_MIN, f"ends on {date}, in {days:.0f} days"


def judge_file(file: Path, until: Until) -> Finding:
    """`until` reads the file."""
    try:
        good, detail = judge_end(until(file).timestamp(), time.time())
    except (OSError, ValueError) as e:
        return judged(False, "certificate", f"{file} cannot be read: {e}")
    return judged(good, "certificate", f"{file} {detail}")


def shown_in(peer: dict[str, Any] | None) -> float | None:
    """When what a server has shown ends, Unix time; None where nothing was verified."""
    return ssl.cert_time_to_seconds(str(peer["notAfter"])) if peer else None


async def shown_until(host: str, port: int, context: ssl.SSLContext) -> float | None:
    """The same of one that is connected to. Raises OSError, TimeoutError."""
    async with asyncio.timeout(CONNECT_SECONDS):
        _, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        return shown_in(writer.get_extra_info("peercert"))
    finally:
        writer.close()
