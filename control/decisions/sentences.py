"""What a rule says of a request, and what would change that, in sentences for people. Pure."""

from collections.abc import Mapping
from typing import Final

from control.moments import rfc3339
from quota.evaluation import Outcome, Rule, Step
from quota.model import Level, Status
from quota.remedies import Change, ChangeKind

RULES: Final[Mapping[Rule, str]] = {
    Rule.PUBLISHED: "The organization is known",
    Rule.VERSION: "The gateway knows the current version",
    Rule.STATUS: "The organization is served",
    Rule.PERIOD: "A period is current",
    Rule.METER: "Units are left",
    Rule.OWN_QUOTA: "The key's own quota",
    Rule.RATE: "The rate limit",
    Rule.OWN_RATE: "The key's own rate limit",
    Rule.CONCURRENCY: "Concurrent requests",
}

_OWNERS: Final = {Level.ORGANIZATION: "organization", Level.KEY: "API key", Level.USER: "user", Level.TEAM: "team"}

OF_PRINCIPALS: Final[Mapping[str, str]] = {
    "missing": "Send a bearer token or an API key.",
    "expired": "Send a token that has not expired.",
    "not_yet_valid": "Wait until the token is valid, or set the clock of its issuer right.",
    "no_keys": "Try again: the keys of the issuer could not be read.",
    "unknown_key": "Send a token of an issuer that the gateway's settings name, signed with a key that it publishes.",
    "wrong_issuer": "Send a token of an issuer that the gateway's settings name.",
    "wrong_audience": "Send a token for the audience that the gateway's settings name.",
    "no_organization": "Send a token whose organization claim names an organization.",
    "key_unknown": "Send a key that exists: this one was never made here, or was deleted.",
    "key_checksum": "Send the whole key: its checksum is wrong, so it was mistyped or cut.",
    "key_environment": "Send a key of the environment that this gateway serves.",
    "key_disabled": "Enable the key.",
    "key_revoked": "Send another key: one that was revoked never comes back.",
    "key_expired": "Send a key that has not expired, or give this one a later expiry.",
    "key_address": "Send the request from an address that the key names, or add the address to the key.",
    "key_scope": "Add the route, the meter or the method to the key's scopes, or send another key.",
    "insufficient_scope": "Send a token with the scope that the route asks for.",
    "insufficient_role": "Send a token with one of the roles that the route asks for.",
    "token_revoked": "Lift the revocation of the token, or get a new token.",
    "session_revoked": "Lift the revocation of the session, or sign in again.",
    "user_revoked": "Lift the revocation of the user.",
    "site_revoked": "Lift the revocation of the site, or activate it again.",
    "organization_revoked": "Lift the revocation of the organization.",
}
"""What would admit a request whose token or key was refused, by the reason."""

OTHERS: Final[Mapping[str, str]] = {
    "ledger_unavailable": "Try again: Redis did not answer in time, so nobody knows whether the request may go on.",
    "pending": "Try again: what the organization may use was not loaded in time.",
    "keys_unavailable": "Try again: the keys that tokens are verified with could not be read.",
    "upstream_away": "Try again later: the upstream was failing, and got no requests for a while.",
    "bad_request": "Correct the request as the answer says.",
}
"""The same of refusals that the ledger was not asked about, by verdict."""


def of_principal(reason: str) -> str:
    return OF_PRINCIPALS.get(reason, "Send a token or a key that is good.")


def of_step(step: Step) -> str:
    """What the rule looked at, and what it found."""
    if step.outcome is Outcome.NO_LIMIT:
        return "No version was said." if step.rule is Rule.VERSION else "Nothing of the kind is limited here."
    if step.before is not None:
        return _of_units(step)
    if step.pace is not None:
        return _of_rate(step)
    refused = step.outcome is Outcome.REFUSED
    if step.rule is Rule.VERSION:
        return f"The take said version {step.limit}; version {step.found} was published."
    if step.rule is Rule.STATUS and step.found is not None:
        return f"Its status is {Status(step.found).word}" + (", which is not served." if refused else ".")
    if step.rule is Rule.CONCURRENCY:
        return f"{step.found:,} of {step.limit:,} concurrent requests are under way."
    if step.rule is Rule.PERIOD and step.window is not None:
        return f"From {rfc3339(step.window.start)} to {rfc3339(step.window.end)}."
    return {
        Rule.PUBLISHED: "No entitlement is published." if refused else "An entitlement is published.",
        Rule.PERIOD: "No published period contains this moment.",
    }.get(step.rule, "")


def _of_units(step: Step) -> str:
    before, after = step.before, step.after
    if before is None:
        return ""
    whose = "" if step.level is Level.ORGANIZATION else f" of the {_OWNERS[step.level]}"
    if step.outcome is Outcome.REFUSED:
        if step.rule is Rule.METER and not step.short:
            return f"The plan does not include {before.meter}."
        left = f"{before.remaining:,} of {before.limit:,} {before.meter}{whose} are left"
        return f"It costs {step.cost:,}; {left}, so {step.short:,} are missing."
    left = "" if after is None else f"; {after.remaining:,} are left after it"
    sold = ""
    if step.paid is not None and step.paid.overage:
        sold = f", and {step.paid.overage:,} are sold as overage"
    return f"It costs {step.cost:,} of {before.remaining:,} {before.meter}{whose} that are left{left}{sold}."


def _of_rate(step: Step) -> str:
    if step.outcome is Outcome.REFUSED:
        return f"The {_OWNERS[step.level]}'s next request can pass in {step.wait_us / 1_000_000:.3f} s."
    return f"The {_OWNERS[step.level]}'s rate limit lets the request pass."


def of_change(change: Change) -> str:
    meter, by, to = change.about.meter, f"{change.by:,}", f"{change.to:,}"
    match change.kind:
        case ChangeKind.GIVE_PLAN:
            return "Give the organization a plan."
        case ChangeKind.READ_AGAIN:
            return "Nothing: the gateway reads the new version by itself, and the next request is decided by it."
        case ChangeKind.SERVE:
            return "Set the organization's status to active."
        case ChangeKind.BEGIN_PERIOD:
            return "Begin a period that contains this moment."
        case ChangeKind.GIVE_GRANT:
            return f"Grant {by} {meter}."
        case ChangeKind.RAISE_ALLOWANCE:
            return f"Raise the allowance of {meter} by {by}, to {to}." if change.by else f"Include {meter} in the plan."
        case ChangeKind.RAISE_OVERAGE:
            return f"Let {by} {meter} more be sold as overage, {to} in all."
        case ChangeKind.RAISE_OWN_QUOTA:
            return f"Raise the quota of {meter} of the {_OWNERS[change.about.level]} by {by}, to {to}{_window(change)}."
        case ChangeKind.RAISE_CONCURRENCY:
            return f"Allow {to} concurrent requests, {by} more."
        case ChangeKind.WAIT:
            return f"Wait {_duration(change.by / 1_000_000)}, until {rfc3339(-(-change.to // 1_000_000))}."


def _window(change: Change) -> str:
    seconds = change.about.window_seconds
    return "" if seconds is None else " in a period" if seconds == 0 else f" in {seconds:,} s"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3f} s"
    days, rest = divmod(int(seconds), 86_400)
    hours, minutes = rest // 3600, rest % 3600 // 60
    parts = [f"{days} d" if days else "", f"{hours} h" if hours else "", f"{minutes} min" if minutes else ""]
    return " ".join(part for part in parts if part)
