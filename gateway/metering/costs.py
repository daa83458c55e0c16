"""What one request costs where that is no fixed number: told by the request, or estimated until the upstream tells.

Pure. A cost that the client tells is read as its upstream will read it, or refused: a second reading would be a way to
pay for one unit and get a thousand.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from gateway.http import headers
from gateway.http.head import RequestHead
from gateway.metering.reported import Reading, UsageReport
from gateway.settings.metering import HeaderCost, MeterCost, QueryCost, ReportedCost
from quota.calls.encoded import EncodedCharges, encode_charges

_DIGITS: Final = re.compile(rb"[0-9]{1,15}")


class CostRefused(Exception):
    """The request does not tell its cost as it should: 400. The text is for the client."""


@dataclass(slots=True)
class RequestPrice:
    """What one request is charged, ready to be sent."""

    charges: dict[str, int]
    charge_bulk: bytes
    """RESP words: number of meters, then meter and cost of each."""
    charge_words: int
    """Words of a whole take: request id, organization, and those of `charge_bulk`."""


def price_of(charges: dict[str, int]) -> RequestPrice:
    encoded = encode_charges(charges) if charges else EncodedCharges(b"", 0)
    return RequestPrice(charges, encoded.bulk, encoded.argv_count)


def usual(cost: MeterCost) -> int:
    """What is charged when nobody tells."""
    if isinstance(cost, int):
        return cost
    return cost.estimate if isinstance(cost, ReportedCost) else cost.default


class Pricing:
    """The costs of a route, at least one of which is no fixed number."""

    def __init__(self, costs: Mapping[str, MeterCost]) -> None:
        self._usual = {meter: usual(cost) for meter, cost in costs.items()}
        self._asked = [(meter, cost) for meter, cost in costs.items() if isinstance(cost, (HeaderCost, QueryCost))]
        reported = [(meter, cost) for meter, cost in costs.items() if isinstance(cost, ReportedCost)]
        self._reading = Reading(reported) if reported else None
        self._price = price_of(self._usual)

    def price(self, head: RequestHead, target: bytes) -> RequestPrice:
        """`target` is the one that goes upstream. Raises CostRefused."""
        if not self._asked:
            return self._price
        charges = dict(self._usual)
        for meter, cost in self._asked:
            if isinstance(cost, HeaderCost):
                values, name = _field(head, cost.header), f"The field {cost.header}"
            else:
                values, name = _parameter(target.partition(b"?")[2], cost.query), f"The query parameter {cost.query}"
            if len(values) > 1:
                raise CostRefused(f"{name} must be given once.")
            if values:
                units = int(values[0]) if _DIGITS.fullmatch(values[0]) else -1
                if not cost.min <= units <= cost.max:
                    raise CostRefused(f"{name} must be a whole number from {cost.min} to {cost.max}.")
                charges[meter] = units
        return price_of(charges)

    def report(self) -> UsageReport | None:
        """What watches the answer for the units it tells."""
        return UsageReport(self._reading) if self._reading is not None else None


def _field(head: RequestHead, name: str) -> list[bytes]:
    """The values of a request's field, as the upstream gets it."""
    wanted, values = name.lower().encode(), []
    for line in headers.without(head.fields, head.nominated) if head.nominated else head.fields:
        spelt, _, value = line.partition(b":")
        lower = spelt.lower()
        if lower == wanted:
            values.append(value.strip())
        elif lower.replace(b"_", b"-") == wanted.replace(b"_", b"-"):
            # To a CGI-like upstream X_Cost and X-Cost are one variable, which would then cost the default.
            raise CostRefused(f"The field {name} must be spelt so.")
    return values


def _parameter(query: bytes, name: str) -> list[bytes]:
    wanted = name.encode()
    values = _values(query.split(b"&"), wanted)
    if b";" in query and _values(re.split(b"[&;]", query), wanted) != values:
        raise CostRefused(f"The query parameter {name} has two readings, since some take `;` for `&`.")
    return values


def _values(pairs: list[bytes], wanted: bytes) -> list[bytes]:
    values = []
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        if unquote_to_bytes(name.replace(b"+", b" ")) == wanted:
            values.append(unquote_to_bytes(value.replace(b"+", b" ")))
    return values
