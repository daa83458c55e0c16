"""What the endpoints work with."""

from dataclasses import dataclass

from common.clock import Clock
from control.access.activation.activating import Activating
from control.access.activation.administration import Administration
from control.access.activation.refreshing import Refreshing
from control.access.publishing import Publisher
from control.db import Database
from control.settings.activation import Activation as ActivationSettings


@dataclass(frozen=True, slots=True)
class Activation:
    settings: ActivationSettings
    activating: Activating
    refreshing: Refreshing
    administration: Administration

    @classmethod
    def of(cls, db: Database, publisher: Publisher, settings: ActivationSettings, clock: Clock) -> "Activation":
        activating = Activating(db, publisher, settings, clock)
        refreshing = Refreshing(db, publisher, activating, settings, clock)
        return cls(settings, activating, refreshing, Administration(db, publisher))
