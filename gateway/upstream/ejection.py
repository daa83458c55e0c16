"""Whether a target is to be used, from what became of the requests to it. Pure: time is a parameter."""

from dataclasses import dataclass
from enum import Enum, auto

from gateway.settings.upstreams import Ejection


class Use(Enum):
    """What a target is good for now."""

    ANY = auto()
    """Every request."""
    LAST_RESORT = auto()
    """Its probes fail, though requests to it did not: used when there is nothing better."""
    TRIAL = auto()
    """Its ejection is over: one request finds out whether it answers again."""
    NONE = auto()
    """Ejected."""


@dataclass(slots=True)
class TargetHealth:
    """One target's record. A trial that is never heard of again (its client left) is followed by another one."""

    terms: Ejection
    failures: int = 0
    """In a row."""
    ejections: int = 0
    """In a row; 0 while it is not ejected."""
    until: float = 0
    """Loop time of the next trial."""
    unhealthy: bool = False
    """By its probes."""
    why: str = ""
    """How the last request to it failed, or its last probe."""
    _on_trial: bool = False
    _streak: int = 0  # of probes that contradict `unhealthy`

    def use(self, now: float) -> Use:
        if self.ejections:
            return Use.TRIAL if now >= self.until else Use.NONE
        return Use.LAST_RESORT if self.unhealthy else Use.ANY

    def record_failure(self, now: float) -> bool:
        """A request failed; true if that ejects the target, for `seconds`."""
        self.failures += 1
        if self.ejections and not self._on_trial:
            return False  # sent before the ejection, or for want of anything better: it says nothing new
        if not self.ejections and self.failures < self.terms.consecutive_failures:
            return False
        self._on_trial = False
        self.ejections += 1
        self.until = now + self.seconds
        return True

    @property
    def seconds(self) -> float:
        """How long the present ejection is: twice the one before, and bounded."""
        doublings = min(self.ejections - 1, 32)
        return min(self.terms.seconds * float(1 << doublings), self.terms.seconds_max)

    def try_once(self, now: float) -> None:
        """The trial begins. No other follows until it is over, or has taken as long as the ejection."""
        self._on_trial = True
        self.until = now + self.seconds

    def record_probe(self, well: bool, healthy_after: int, unhealthy_after: int) -> bool:
        """A probe came back; true if the target changes by it."""
        if well is not self.unhealthy:
            self._streak = 0
            return False
        self._streak += 1
        if self._streak < (healthy_after if well else unhealthy_after):
            return False
        self._streak = 0
        self.unhealthy = not well
        return True

    def record_answer(self) -> bool:
        """An answer came; true if that ends an ejection."""
        ended = self.ejections > 0
        self.failures = self.ejections = 0
        self._on_trial = False
        return ended
