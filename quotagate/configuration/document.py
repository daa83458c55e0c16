"""The file: its form, which is that of the API's own bodies, and its faults by line and field."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from common.clock import end_of_day
from common.settings_file import Location, SettingsConflict, SettingsError, SettingsModel, parse, places
from control.api.alerts import Percent
from control.api.entitlements import EntitlementBody
from control.api.grants import GrantBody
from control.api.key_views import Environment, KeyTermsBody
from control.documents import BoundedMoment, Moment, Whole
from control.entitlements.plans import Meter, PlanCode, PlanTerms, Units
from quota.access import KEY_ID_PATTERN
from quota.keys import ORG_PATTERN
from quotagate.failure import ConfigurationFaulty

FORMAT = 1
SUFFIXES = (".yaml", ".yml", ".json")

OrgId = Annotated[str, Field(pattern=ORG_PATTERN)]
KeyId = Annotated[str, Field(pattern=KEY_ID_PATTERN)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


def _end(value: object) -> object:
    day = end_of_day(value) if isinstance(value, str) else None
    return value if day is None else day.isoformat()


End = BeforeValidator(_end)
"""Of a time that something ends at: a day, `2026-12-31`, is its last second, UTC."""


class GrantItem(GrantBody):
    expires_at: Annotated[Moment, End]


class KeyItem(KeyTermsBody):
    """An API key, without the key itself: it is in no file."""

    expires_at: Annotated[BoundedMoment, End] | None = None
    environment: Environment | None = None
    enabled: Annotated[bool, Field(strict=True)] = True


class OrganizationItem(SettingsModel):
    """An organization. What is left out is left alone; what is there is all of it."""

    name: Name | None = None
    shadow: Annotated[bool, Field(strict=True)] | None = None
    suspended: Annotated[bool, Field(strict=True)] | None = None
    """Of an organization without an entitlement; of one that has it, `entitlement.status` says so."""
    entitlement: EntitlementBody | None = None
    """null: it has none."""
    grants: list[GrantItem] | None = None
    caps: dict[Meter, Annotated[Units, Whole]] | None = None
    """The organization's own caps of overage."""
    alerts: Annotated[list[Percent], Field(max_length=10)] | None = None
    """Percentages of an allowance."""
    keys: dict[KeyId, KeyItem] | None = None

    @model_validator(mode="after")
    def _has_one_word_for_suspension(self) -> Self:
        if self.suspended is not None and self.entitlement is not None:
            raise SettingsConflict([(("suspended",), "goes without an entitlement: say entitlement.status: suspended")])
        return self


class Configuration(SettingsModel):
    """All of a file, or the part of a directory that one file holds."""

    format: Literal[1]
    """Of the file."""
    plans: dict[PlanCode, PlanTerms] | None = None
    organizations: dict[OrgId, OrganizationItem] | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """What the files say, and where each organization and plan is said."""

    plans: Mapping[str, PlanTerms] | None
    """None: no file speaks of plans."""
    organizations: Mapping[str, OrganizationItem] | None
    texts: Mapping[tuple[str, str], tuple[str, str]]
    """("organizations", "acme") -> name and text of its file."""

    def place(self, at: Location) -> str:
        """`file:line: field: ` of something that an organization or a plan has."""
        return _places(*self.texts[str(at[0]), str(at[1])])(at)


@lru_cache(maxsize=1)  # of a file with many faults, once
def _places(name: str, text: str) -> Callable[[Location], str]:
    return places(name, text)


def read(path: Path) -> Read:
    """A file, or all files of a directory as one. Raises ConfigurationFaulty with each fault of all of them."""
    faults: list[str] = []
    plans: dict[str, PlanTerms] | None = None
    organizations: dict[str, OrganizationItem] | None = None
    texts: dict[tuple[str, str], tuple[str, str]] = {}
    for file in _files(path):
        text = _text(file)
        try:
            found = parse(str(file), text, Configuration, os.environ, strict=None)  # as the API reads bodies
        except SettingsError as e:
            faults.append(str(e))
            continue
        for kind, items in (("plans", found.plans), ("organizations", found.organizations)):
            for code in items or ():
                if (kind, code) in texts:
                    faults.append(f"{_places(str(file), text)((kind, code))}is in {texts[kind, code][0]}, too")
                texts[kind, code] = (str(file), text)
        plans = found.plans if plans is None else plans | (found.plans or {})
        organizations = found.organizations if organizations is None else organizations | (found.organizations or {})
    if faults:
        raise ConfigurationFaulty("\n".join(["nothing was done, since the configuration has faults", *faults]))
    return Read(plans, organizations, texts)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(_inside(path))
    if not files:
        raise ConfigurationFaulty(f"{path} holds no file whose name ends with {', '.join(SUFFIXES)}")
    return files


def _inside(directory: Path) -> Iterator[Path]:
    """Hidden files and directories are others': git's, an editor's."""
    for file in directory.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(directory).parts)
        if not hidden and file.suffix in SUFFIXES and file.is_file():
            yield file


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as e:
        raise ConfigurationFaulty(f"{file} cannot be read: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise ConfigurationFaulty(f"{file}:{e.object[: e.start].count(10) + 1}: not UTF-8 text") from None
