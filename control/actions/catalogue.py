"""All actions, by name."""

from collections.abc import Mapping
from typing import Any, Final

from control.actions.action import Action
from control.actions.failures import ActionUnknown
from control.actions.kinds.access import ActivationCode, RevokeKey, RollKey
from control.actions.kinds.caps import SetCap
from control.actions.kinds.entitlements import Override, Resume, Suspend
from control.actions.kinds.grants import Grant
from control.actions.kinds.money import Credit, Discount, Refund
from control.actions.kinds.shadow import Shadow
from control.actions.kinds.subscriptions import CancelSubscription, SwitchPlan
from control.actions.kinds.upkeep import Reconcile, Resync

ACTIONS: Final[Mapping[str, Action[Any]]] = {
    action.name: action
    for action in (
        Override(),
        Grant(),
        SetCap(),
        Suspend(),
        Resume(),
        Shadow(),
        Credit(),
        Refund(),
        Discount(),
        SwitchPlan(),
        CancelSubscription(),
        ActivationCode(),
        RollKey(),
        RevokeKey(),
        Resync(),
        Reconcile(),
    )
}


def action_of(name: str) -> Action[Any]:
    """Raises ActionUnknown, also for one that only an earlier or later release has."""
    action = ACTIONS.get(name)
    if action is None:
        raise ActionUnknown(name)
    return action
