"""What an organization of the demo history does, and when: it signs up, changes its plan, does not pay, leaves.

Drawn from a seed, in seconds since the history began. Pure."""

import random
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Final

DAY: Final = 86_400
MONTH: Final = 30 * DAY + 10 * 3600
"""About a month: whoever needs the exact one asks Stripe."""
LADDER: Final = ("starter", "team", "growth", "pro")
"""Plans, the smallest first: an upgrade is a step up."""
TRIAL_DAYS: Final = 14
LAUNCH, WELCOME, ONCE = "LAUNCH50", "WELCOME20", "FIRST20"


SHADOWED: Final = 5
"""This organization uses more than it has, and is in shadow mode at the end."""
SHADOW_DAYS: Final = 20


class Deed(StrEnum):
    """What happens."""

    SIGN_UP = auto()
    SELL = auto()
    """The vendor's people give it a plan that has no price."""
    CARD = auto()
    PAY = auto()
    SWITCH = auto()
    CANCEL = auto()
    STAY = auto()
    CREDIT = auto()
    REFUND = auto()
    DISPUTE = auto()
    GRANT = auto()
    OVERRIDE = auto()
    SUSPEND = auto()
    RESUME = auto()
    SHADOW = auto()
    """Nothing of it is refused any more: what would be is looked at first."""


@dataclass(frozen=True, slots=True)
class Step:
    """One deed. What does not belong to it stays as it is here."""

    at: int
    deed: Deed
    plan: str = ""
    interval: str = "month"
    quantity: int = 1
    trial: bool = False
    card: str = "good"
    coupon: str | None = None
    amount: int = 0
    """Minor units of a credit, units of a grant or of an override."""


@dataclass(frozen=True, slots=True)
class Life:
    steps: tuple[Step, ...]
    appetite: float
    """The share of its allowance that it uses in a month, on average."""
    growth: float
    """How much more it uses from month to month."""


def life(number: int, days: int, draw: random.Random) -> Life:
    """The life of the n-th organization, in a history of so many days."""
    appetite, growth = min(1.6, draw.lognormvariate(-0.55, 0.5)), draw.gauss(0.02, 0.05)
    if number % 50 == 49:
        return Life((Step(_begins(number, days, draw), Deed.SELL, plan="scale"),), 0.02 * appetite, growth)
    if number == SHADOWED:
        sign_up = Step(_begins(number, days, draw), Deed.SIGN_UP, "starter")
        return Life((sign_up, Step((days - SHADOW_DAYS) * DAY, Deed.SHADOW)), 2.5, 0.0)
    plan = draw.choices(("starter", "team", "growth", "pro", "team_eu"), (46, 26, 13, 4, 11))[0]
    interval = "year" if draw.random() < 0.18 else "month"
    start, trial = _begins(number, days, draw), draw.random() < 0.45
    card = "none" if trial and draw.random() < 0.35 else "good"
    coupon = draw.choices((None, LAUNCH, WELCOME, ONCE), (72, 11, 11, 6))[0]
    quantity = draw.choices((1, 2, 5), (88, 8, 4))[0] if plan.startswith("team") else 1
    sign_up = Step(start, Deed.SIGN_UP, plan, interval, quantity, trial, card, None if plan == "team_eu" else coupon)
    if card == "none":
        return Life((sign_up,), appetite, growth)
    anchor = start + (TRIAL_DAYS * DAY if trial else 0)
    steps = [sign_up, *_favours(anchor, draw)]
    last, turn = sign_up, anchor + draw.randint(1, 4) * MONTH
    while turn < days * DAY and last.deed is not Deed.CANCEL:
        steps += (new := _turn(turn, anchor, last, draw))
        last = next((each for each in reversed(new) if each.deed in (Deed.SWITCH, Deed.CANCEL)), last)
        turn += draw.randint(2, 6) * MONTH
    return Life(tuple(sorted(steps, key=lambda step: step.at)), appetite, growth)


def _begins(number: int, days: int, draw: random.Random) -> int:
    """A fifth is there from the beginning; of the others more and more come."""
    last = max(1, days - 4)
    day = draw.uniform(0, 10) if number % 5 == 0 else last * draw.random() ** 0.75
    return int(min(day, last) * DAY) + draw.randrange(6 * 3600, 20 * 3600)


def _turn(turn: int, anchor: int, last: Step, draw: random.Random) -> list[Step]:
    """Something that happens to the subscription at about that time, or nothing. `last`: its last sign-up or change."""
    fate, at = draw.random(), turn + draw.randrange(3 * DAY, 24 * DAY)
    if fate < 0.22 and last.plan in LADDER[:-1]:
        return [Step(at, Deed.SWITCH, LADDER[LADDER.index(last.plan) + 1], last.interval)]
    if fate < 0.30 and last.plan in LADDER[1:]:
        return [Step(at, Deed.SWITCH, LADDER[LADDER.index(last.plan) - 1], last.interval)]
    if fate < 0.36:
        return [Step(at, Deed.SWITCH, last.plan, last.interval, quantity=last.quantity + draw.randint(1, 3))]
    if fate < 0.52:
        return _leaving(at, last, draw)
    if fate < 0.74 and last.interval == "month":
        return _not_paying(anchor + round((turn - anchor) / MONTH) * MONTH, draw)
    return []


def _leaving(at: int, last: Step, draw: random.Random) -> list[Step]:
    steps, regret = [Step(at, Deed.CANCEL)], draw.random()
    if regret < 0.15:
        steps.append(Step(at + 2 * DAY, Deed.STAY))
    elif regret < 0.5:
        again = at + draw.randint(2, 4) * MONTH + draw.randrange(DAY)
        steps.append(Step(again, Deed.SIGN_UP, last.plan, "month", last.quantity))
    return steps


def _not_paying(due: int, draw: random.Random) -> list[Step]:
    """Its card is declined at a renewal; most mend that, some when Stripe has given up, some never."""
    steps, outcome = [Step(due - 6 * DAY, Deed.CARD, card="declines")], draw.random()
    if outcome < 0.55:
        steps.append(Step(due + draw.randint(5, 9) * DAY, Deed.CARD, card="good"))
    elif outcome < 0.75:
        mended = due + draw.randint(26, 34) * DAY
        steps += [Step(mended, Deed.CARD, card="good"), Step(mended + 600, Deed.PAY)]
    elif outcome < 0.9:
        steps.append(Step(due + 40 * DAY, Deed.CANCEL))
    return steps


def _favours(anchor: int, draw: random.Random) -> list[Step]:
    """What the vendor's people do for it, and to it."""
    at = anchor + draw.randint(1, 8) * MONTH + draw.randrange(MONTH // 2)
    match draw.randrange(24):
        case 0 | 1:
            return [Step(at, Deed.CREDIT, amount=draw.choice((1000, 2500, 5000)))]
        case 2:
            return [Step(at, Deed.REFUND)]
        case 3:
            return [Step(at, Deed.DISPUTE)]
        case 4 | 5 | 6:
            return [Step(at, Deed.GRANT, amount=draw.choice((1000, 5000, 20_000)))]
        case 7:
            return [Step(at, Deed.OVERRIDE, amount=draw.choice((15_000, 60_000, 150_000)))]
        case 8:
            return [Step(at, Deed.SUSPEND), Step(at + draw.randint(1, 6) * DAY, Deed.RESUME)]
        case _:
            return []
