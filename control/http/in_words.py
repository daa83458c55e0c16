"""What a field must be, in words: a regular expression tells a person nothing. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from common.settings_file import SettingsConflict
from control.actions.previews import PATTERN as STATE_PATTERN
from quota.access import KEY_ID_PATTERN, SCOPE_PATTERN
from quota.keys import METER_PATTERN, ORG_PATTERN

_PRINTABLE: Final = "ASCII characters without blanks"
_CURSOR: Final = "must be what the page before gave as `next`"
PATTERNS: Final[Mapping[str, str]] = {
    ORG_PATTERN: (
        "must be an organization's id: letters, digits and . _ : @ | -, at most 128, and first a letter or digit"
    ),
    METER_PATTERN: "must be a meter: lower-case letters, digits and _, at most 63, and first a letter",
    KEY_ID_PATTERN: "must be a key's id, which has 12 letters and digits; it is not the key itself",
    SCOPE_PATTERN: f"must be a scope: route:, meter: or method:, and behind it 1 to 64 {_PRINTABLE}",
    STATE_PATTERN: "must be the `state` of a preview, as it was given",
    r"^[a-z][a-z0-9_-]{0,62}$": (
        "must be a plan's code: lower-case letters, digits, _ and -, at most 63, and first a letter"
    ),
    r"^[a-z]{3}$": "must be a currency in lower case, such as usd",
    r"^[a-z][a-z0-9]{0,15}$": "must be an environment: lower-case letters and digits, at most 16, and first a letter",
    r"^[A-Za-z0-9_.:@|-]{1,128}$": "must be a user's id: letters, digits and . _ : @ | -, at most 128",
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$": (
        "must be a name: letters, digits and . _ -, at most 64, and first a letter or digit"
    ),
    r"^[A-Za-z0-9_.:-]{1,64}$": "must be a role: letters, digits and . _ : -, at most 64",
    r"^[A-Za-z0-9_-]{43}$": "must be the id of a signing key, which has 43 characters",
    r"^[A-Za-z0-9_.-]{1,200}$": "must be an id of Stripe's: letters, digits and . _ -, at most 200",
    r"^[A-Za-z0-9-]{1,100}$": "must be a code: letters, digits and -, at most 100",
    r"^cus_[A-Za-z0-9_]{1,200}$": "must be the id of a customer at Stripe, such as cus_1abc",
    r"^evt_[A-Za-z0-9_]{1,200}$": "must be the id of an event of Stripe's, such as evt_1abc",
    r"^[^@\s]+@[^@\s]+$": "must be an e-mail address",
    r"^[^@\s\x00]+@[^@\s\x00]+$": "must be an e-mail address",
    r"^[!-~]+$": f"must be {_PRINTABLE}",
    r"^[!-~]*$": f"must be {_PRINTABLE}",
    r"^[!-~]{4}$": f"must be 4 {_PRINTABLE}",
    r"^[!-~]{1,100}$": f"must be 1 to 100 {_PRINTABLE}",
    r"^[!-~]{1,255}$": f"must be 1 to 255 {_PRINTABLE}",
    r"^[!-.0-~]{1,200}$": f"must be 1 to 200 {_PRINTABLE}, none of them a slash",
    r"^[!-.0-~]{1,255}$": f"must be 1 to 255 {_PRINTABLE}, none of them a slash",
    r"^[!#-\[\]-~]{1,128}$": f'must be 1 to 128 {_PRINTABLE}, none of them " or a backslash',
    r"^[^\x00]+$": "must be a text without NUL characters",
    r"^[^\x00]*$": "must be a text without NUL characters",
    r"^[^\x00-\x1f\x7f]+$": "must be one line of text, without control characters",
    r"[^\s]": "must be more than blanks",
    r"^((\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*|[a-z0-9_-]{1,63}\.\*)$": (
        "must be a domain in lower case, such as example.com, *.example.com or localhost.*"
    ),
    rf"^{METER_PATTERN[1:-1]}:[0-9]{{1,13}}$": "must be a meter and its units, such as api_calls:1",
    r"^[!-~]([ -~]{0,398}[!-~])?$": "must be a route's name: 1 to 400 ASCII characters, with no blank at either end",
    r"^[A-Z][A-Z-]{0,31}$": "must be a method in capitals, such as GET",
    r"^/[A-Za-z0-9._~!$&'()*+,=:@/-]{0,1000}$": "must be a path, from its first slash on, without a query",
    r"^([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{1,45}\])(:[0-9]{1,5})?$": "must be a host, such as api.example.com",
    r"^[a-z][a-z0-9_]{0,62}=[0-9]{1,15}(/[1-9][0-9]{0,7})?$": (
        "must be a meter and its units, such as api_calls=100, and /seconds behind it where it is for another time than"
        " a period"
    ),
    r"^(none|[1-9][0-9]{0,5}/[1-9][0-9]{0,3}(/[1-9][0-9]{0,5})?)$": (
        "must be requests in seconds, such as 100/60, with a burst behind it, such as 100/60/20; or none"
    ),
    r"^(none|[1-9][0-9]{0,3})$": "must be a number from 1 to 9999, or none",
    r"^[0-9]{1,17}:[!-~]{1,200}$": _CURSOR,
    r"^[a-z]{1,20}:[^\x00]{0,255}$": _CURSOR,
    r"^(open|closed):[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$": _CURSOR,
    r"^(?:([0-9]{4}-[0-9]{2}-[0-9]{2})/)?([^/]{1,128})/([^/]{1,255})$": _CURSOR,
}
_ELSE: Final = "has characters that are not possible here"
"""Of any other pattern."""


def errors_of(fault: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Each field that is wrong, and why: of fields that conflict, there are several in one fault."""
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, SettingsConflict):
        for inner, message in cause.faults:
            yield {"field": ".".join(map(str, (*fault["loc"], *inner))), "message": message}
    else:
        yield {"field": ".".join(map(str, fault["loc"])), "message": message_of(fault)}


def message_of(fault: Mapping[str, Any]) -> str:
    """What pydantic found, for the person who sent it. The sentences of our own rules are complete as they are."""
    if fault["type"] == "string_pattern_mismatch":
        return PATTERNS.get(fault["ctx"]["pattern"], _ELSE)
    if fault["type"].startswith("uuid_"):
        return "must be an id as lists show it, which is a UUID; a name is none"
    return str(fault["msg"]).removeprefix("Value error, ")
