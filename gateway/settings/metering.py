"""What an operator can decide about costs and refunds: `meters` and `refund` of a route in `config/gateway.yaml`."""

import math
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from common.settings_file import SettingsConflict, SettingsModel
from gateway.http.headers import FORWARD, classify_request, classify_response
from quota.model import COST_MAX


def _request_field(name: str) -> str:
    if classify_request(name.encode()) != FORWARD:
        raise ValueError("must name a field that clients may send and that goes upstream")
    return name


def _answer_field(name: str) -> str:
    if classify_response(name.encode()) != FORWARD:
        raise ValueError("must name a field of the answer itself, not of the connection")
    return name


Units = Annotated[int, Field(ge=0, le=COST_MAX)]
Cost = Annotated[int, Field(ge=1, le=COST_MAX)]
RequestField = Annotated[str, AfterValidator(_request_field)]
AnswerField = Annotated[str, AfterValidator(_answer_field)]
PATHS_MAX: Final = 16
JSON_PATH: Final = r"^[^.\x00-\x1f]{1,64}(\.[^.\x00-\x1f]{1,64}){0,15}$"


class _RequestCost(SettingsModel):
    """A whole number that the request itself tells. One that is malformed, out of bounds or given twice is 400."""

    default: Units = 1
    """Of a request that does not tell it."""
    min: Units = 1
    """0 lets a request be free if it says so."""
    max: Cost

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        message = f"must not be more than max ({self.max})"
        faults = [((name,), message) for name in ("min", "default") if getattr(self, name) > self.max]
        if faults:
            raise SettingsConflict(faults)
        return self


class HeaderCost(_RequestCost):
    header: RequestField


class QueryCost(_RequestCost):
    query: Annotated[str, Field(pattern=r"^[!-~]{1,64}$")]
    """The parameter's name, decoded."""


class ReportedHeader(SettingsModel):
    header: AnswerField


class ReportedTrailer(SettingsModel):
    trailer: AnswerField


JsonPath = Annotated[str, Field(pattern=JSON_PATH)]
JsonPathList = Annotated[tuple[JsonPath, ...], Field(min_length=1, max_length=PATHS_MAX)]


def _path_kind(value: Any) -> str:
    if isinstance(value, (dict, SettingsModel)):
        return "a sum"
    return "a list" if isinstance(value, (list, tuple)) else "a path"


JsonTerm = Annotated[
    Annotated[JsonPath, Tag("a path")] | Annotated[JsonPathList, Tag("a list")],
    Discriminator(
        lambda value: kind if (kind := _path_kind(value)) != "a sum" else None,
        custom_error_type="path",
        custom_error_message="must be a path or a list of paths",
    ),
]


class JsonSum(SettingsModel):
    """Several numbers that are added up."""

    sum: Annotated[tuple[JsonTerm, ...], Field(min_length=1, max_length=PATHS_MAX)]
    """Each a path or a list of paths. One that the answer never tells makes the whole report missing."""


class ReportedJson(SettingsModel):
    # "json" is a method of pydantic's models
    path: Annotated[
        Annotated[JsonPath, Tag("a path")] | Annotated[JsonPathList, Tag("a list")] | Annotated[JsonSum, Tag("a sum")],
        Discriminator(_path_kind),
        Field(alias="json"),
    ]
    """Names of members, separated by dots, from the outermost object. The body is JSON, server-sent events or lines of
    JSON; of those the last one that has the path counts, and a null is as if it were not there. Of a list of paths, the
    first that the answer has counts, wherever the others are. {sum: [...]} adds up."""

    @property
    def terms(self) -> tuple[tuple[str, ...], ...]:
        """What is added up, each as a list of paths."""
        terms = self.path.sum if isinstance(self.path, JsonSum) else (self.path,)
        return tuple((term,) if isinstance(term, str) else term for term in terms)


class Delivered(SettingsModel):
    """Charged by what was delivered, at most `max`."""

    per: Literal["event", "byte"]
    """event: a server-sent event with data, or a line of JSON; a whole JSON text is one. byte: of the body, without its
    content codings."""
    units: Annotated[Decimal, Field(gt=0, le=COST_MAX)] = Decimal(1)
    """For each. A part of a unit is rounded up at the end."""
    base: Units = 0
    """Added to that, for what an answer costs before its first event."""

    def units_for(self, count: int) -> int:
        return self.base + math.ceil(self.units * count)


def _kind(value: Any, kinds: tuple[str, ...]) -> str | None:
    """Which one of the fields a mapping has, or the model that was made of it; None for several or none."""
    if isinstance(value, dict):
        given = [kind for kind in kinds if kind in value]
    else:
        given = [kind for kind in kinds if isinstance(value, SettingsModel) and kind in _spelt(value)]
    return f"by {given[0]}" if len(given) == 1 else None


def _spelt(part: SettingsModel) -> set[str]:
    return {info.alias or name for name, info in type(part).model_fields.items()}


def _source_kind(value: Any) -> str | None:
    return _kind(value, ("header", "trailer", "json"))


def _unreported_kind(value: Any) -> str:
    return "delivered" if isinstance(value, (dict, SettingsModel)) else "the estimate"


def _cost_kind(value: Any) -> str | None:
    return _kind(value, ("reported", "header", "query")) if isinstance(value, (dict, SettingsModel)) else "a number"


class ReportedCost(SettingsModel):
    """Charged with an estimate, and corrected by what the upstream tells in its answer."""

    reported: Annotated[
        Annotated[ReportedHeader, Tag("by header")]
        | Annotated[ReportedTrailer, Tag("by trailer")]
        | Annotated[ReportedJson, Tag("by json")],
        Discriminator(
            _source_kind, custom_error_type="reported", custom_error_message="must be one of header, trailer, json"
        ),
    ]
    estimate: Units
    """What is charged at admission."""
    max: Cost
    """More is not believed."""
    unreported: Annotated[
        Annotated[Literal["estimate"], Tag("the estimate")] | Annotated[Delivered, Tag("delivered")],
        Discriminator(_unreported_kind),
    ] = "estimate"
    """What is charged when an answer that has begun tells nothing that can be believed to its end, or until the client
    leaves, the upstream breaks off or the gateway stops. estimate: it stays charged. {per: event, units: 1, base: 0} or
    {per: byte, ...}: what was delivered; what cannot be counted leaves the estimate."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.estimate > self.max:
            raise SettingsConflict([(("estimate",), f"must not be more than max ({self.max})")])
        return self


Outcome = Literal[
    "connect_failure", "invalid_answer", "request_refused", "timeout", "server_error", "cut_answer", "client_abort"
]


class Refund(SettingsModel):
    """When a charge is given back. One whose request was not sent at all always is."""

    on: tuple[Outcome, ...] = ("connect_failure", "invalid_answer", "request_refused")
    """connect_failure: no target could be reached or had room (502, 503). invalid_answer: the upstream ended, or sent
    what is no HTTP, before a head (502). request_refused: the gateway ended a request that was under way (408, 413, or
    503 when it stops). timeout: no answer in time (504). server_error: the upstream answered 5xx. cut_answer: the
    upstream broke off within its answer, or the gateway when it stops. client_abort: the client left before the answer
    was complete."""
    cap_per_period: Annotated[int, Field(ge=0, le=COST_MAX)] | None = None
    """Requests of an organization that may be refunded in one of its periods, over all routes with a cap and all
    gateways; beyond it charges stay. What was never sent (connect_failure) is not counted. null: no cap."""


class OnAbort(SettingsModel):
    """When a client leaves, the upstream's answer is read on, so that it can tell what was used."""

    drain_seconds: Annotated[float, Field(gt=0, le=3600)] = 60
    """From when the client left; then the answer is cut, and charged as `unreported` says."""
    drain_bytes_max: Annotated[int, Field(ge=1)] = 16_777_216
    """Likewise, of its body as it comes."""


MeterCost = Annotated[
    Annotated[Cost, Tag("a number")]
    | Annotated[HeaderCost, Tag("by header")]
    | Annotated[QueryCost, Tag("by query")]
    | Annotated[ReportedCost, Tag("by reported")],
    Discriminator(
        _cost_kind,
        custom_error_type="cost",
        custom_error_message="must be a number, or have one of header, query, reported",
    ),
]
