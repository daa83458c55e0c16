"""What an examination finds."""

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """The value is what is printed."""

    GOOD = "good"
    NOTE = "note"
    """Somebody should know of it. It is no fault here, and may be one elsewhere."""
    WRONG = "WRONG"


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    what: str
    detail: str

    @property
    def is_wrong(self) -> bool:
        return self.level is Level.WRONG

    def document(self) -> dict[str, object]:
        return {"good": not self.is_wrong, "level": self.level.value.lower(), "what": self.what, "told": self.detail}


def judged(good: bool, what: str, detail: str) -> Finding:
    return Finding(Level.GOOD if good else Level.WRONG, what, detail)


def noted(good: bool, what: str, detail: str) -> Finding:
    return Finding(Level.GOOD if good else Level.NOTE, what, detail)
