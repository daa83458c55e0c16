"""A rate limit is one value, `quota.model.RateLimit`. Here is what it may be, and how tables and JSON hold it."""

from typing import Annotated, TypedDict

from pydantic import Field

from quota.model import RateLimit

RateRequests = Annotated[int, Field(ge=1, le=10**6)]
RateSeconds = Annotated[float, Field(gt=0, le=86_400)]
RateBurst = Annotated[int, Field(ge=1, le=10**6)]


class RateColumns(TypedDict):
    """All are NULL, or none is."""

    rate_requests: int | None
    rate_seconds: float | None
    rate_burst: int | None


def rate_of(requests: int | None, seconds: float | None, burst: int | None) -> RateLimit | None:
    """From the columns."""
    if requests is None or seconds is None or burst is None:
        return None
    return RateLimit(requests, seconds, burst)


def rate_columns(rate: RateLimit | None) -> RateColumns:
    if rate is None:
        return {"rate_requests": None, "rate_seconds": None, "rate_burst": None}
    return {"rate_requests": rate.requests, "rate_seconds": rate.seconds, "rate_burst": rate.burst}


def rate_content(rate: RateLimit | None) -> dict[str, float] | None:
    """As JSON has it."""
    return None if rate is None else {"requests": rate.requests, "seconds": rate.seconds, "burst": rate.burst}
