"""What becomes of a request of a site: decisions as tables, without a database. Pure.

One key chain belongs to one site. Where two domains show tokens of one chain, one of them is a copy. Nobody is locked
out for that: the site that was there first keeps its seat, the copy gets a staging seat, and an admin is told of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from common.transitions import after
from control.access.activation.refresh_tokens import Standing


class SiteKind(Enum):
    PRODUCTION = "production"
    """It has a seat of its activation code."""
    STAGING = "staging"
    """It takes none: its domain does not count, or it is a copy of a site."""


class SiteState(Enum):
    ACTIVE = "active"
    RELEASED = "released"
    """Its seat is free again."""
    REVOKED = "revoked"
    """As released, and it is an end that the site did not want."""


class SiteEvent(Enum):
    RELEASE = "release"
    """By the site, or by an admin."""
    REPLACE = "replace"
    """Another site has its domain, its place or its seat now."""
    REVOKE = "revoke"
    """By an admin."""
    REUSE = "reuse"
    """An earlier refresh token was shown at its own domain."""


_TRANSITIONS: Final[Mapping[tuple[SiteState, SiteEvent], SiteState]] = {
    (SiteState.ACTIVE, SiteEvent.RELEASE): SiteState.RELEASED,
    (SiteState.ACTIVE, SiteEvent.REPLACE): SiteState.RELEASED,
    (SiteState.ACTIVE, SiteEvent.REVOKE): SiteState.REVOKED,
    (SiteState.ACTIVE, SiteEvent.REUSE): SiteState.REVOKED,
    (SiteState.RELEASED, SiteEvent.REVOKE): SiteState.REVOKED,
}


def state_after(state: SiteState, event: SiteEvent) -> SiteState:
    """Raises ImpossibleTransition. No event leads back: whoever activates again is another site."""
    return after(_TRANSITIONS, state, event)


class RefreshStep(Enum):
    ROTATE = "rotate"
    """The usual one: a successor."""
    REPEAT = "repeat"
    """The same successor again: the reply was lost, or two processes asked at once."""
    MOVE = "move"
    """The site is at another domain now; it leaves the old one."""
    FORK = "fork"
    """A copy of the site gets a staging seat of its own. The site itself goes on as it was."""
    RECLAIM = "reclaim"
    """The site is at its former domain after all: what seemed to be a move was a copy, which gets a staging seat."""
    REJOIN = "rejoin"
    """The tokens are of another copy of the site that is known at this domain: it goes on with them."""
    REVOKE = "revoke"
    """Somebody else may have the tokens, too."""
    TAKEN = "taken"
    """Another site of the organization has this domain."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a refresh shows, once its proof is right."""

    standing: Standing
    kind: SiteKind
    at_own_domain: bool
    at_former_domain: bool = False
    counted: bool = True
    """Whether the domain that it says takes a seat."""
    same_key_there: bool = False
    """Another active site with this domain has the same key."""
    other_key_there: bool = False
    """Another active site with this domain has another key; only where the domain counts."""
    seat_free: bool = False
    """In the activation code of the site."""
    displaced: bool = False
    """The family ended since other tokens were shown at the site's domain (REJOIN)."""


def refresh_step(shown: Shown) -> RefreshStep:
    if shown.at_own_domain:
        return _at_own_domain(shown)
    if shown.same_key_there:
        return RefreshStep.REJOIN
    if shown.other_key_there:
        return RefreshStep.TAKEN
    if shown.standing is Standing.CURRENT and not shown.displaced and _may_move(shown):
        return RefreshStep.MOVE
    return RefreshStep.RECLAIM if shown.at_former_domain else RefreshStep.FORK


def _at_own_domain(shown: Shown) -> RefreshStep:
    if shown.displaced:
        # Two installations say that they are this site. On a developer's machine both may be right: `localhost`.
        return RefreshStep.REVOKE if shown.kind is SiteKind.PRODUCTION else RefreshStep.FORK
    if shown.standing is Standing.CURRENT:
        return RefreshStep.ROTATE
    return RefreshStep.REPEAT if shown.standing is Standing.REPEATED else RefreshStep.REVOKE


def _may_move(shown: Shown) -> bool:
    if shown.kind is SiteKind.PRODUCTION:
        return shown.counted  # nobody moves a live site to `localhost`: that is a copy for trying something
    return not shown.counted or shown.seat_free  # what was built on `localhost` goes live


class ActivationStep(Enum):
    NEW = "new"
    RENEW = "renew"
    """The site is known: it was reinstalled, or asks again. It keeps its id and its seat."""
    MOVE = "move"
    """The site was known at another domain, where it has been silent."""
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Asked:
    """What an activation with a code that is in force asks for."""

    counted: bool
    known: bool = False
    """An active site of the organization with this domain is there."""
    same_key: bool = False
    """That one has the same key."""
    same_code: bool = False
    """That one was activated by this code."""
    just_activated: bool = False
    """That one was activated within the grace."""
    silent_elsewhere: bool = False
    """A site of this key and code, at another domain, has not been heard of for long."""
    seat_free: bool = False
    """In this code."""
    staging_free: bool = True
    """The organization may have another staging site."""


def activation_step(asked: Asked) -> ActivationStep:
    if asked.known:
        return _of_known(asked)
    if not asked.counted:
        return ActivationStep.NEW if asked.staging_free else ActivationStep.REFUSE
    if asked.seat_free:
        return ActivationStep.NEW
    return ActivationStep.MOVE if asked.silent_elsewhere else ActivationStep.REFUSE


def _of_known(asked: Asked) -> ActivationStep:
    if asked.same_code:
        # Of several that use one code at once, one wins: whoever reinstalls a site has lost its key later than that.
        lost_the_race = asked.just_activated and not asked.same_key
        return ActivationStep.REFUSE if lost_the_race else ActivationStep.RENEW
    # Its seat moves to this code, which is the one that is good for longer.
    return ActivationStep.RENEW if asked.seat_free or not asked.counted else ActivationStep.REFUSE
