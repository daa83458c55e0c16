"""Who the organizations of the demo history are: names, addresses and people, the same ones each time. Pure."""

import random
from dataclasses import dataclass
from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_FIRST: Final = _words(
    "Alder Amber Arbor Aurora Beacon Birch Blue Bright Cedar Cobalt Copper Coral Crescent Delta Ember Falcon Fjord"
    " Granite Harbor Hazel Iron Juniper Keystone Lark Linden Lumen Maple Meridian Mistral Nimbus North Oak Onyx Opal"
    " Orchard Pioneer Prairie Quartz Raven Ridge River Sable Salt Sierra Silver Solstice Sparrow Summit Tidal Willow"
)
_SECOND: Final = _words("Analytics Freight Health Labs Logistics Media Retail Robotics Software Systems Travel Works")
_GIVEN: Final = _words(
    "Aisha Ben Carla Daniel Elena Farid Grace Hugo Ines Jonas Keiko Liam Maya Noah Olga Pablo Quinn Rosa Samir Tessa"
    " Umar Vera Wen Yara Zoe"
)
_FAMILY: Final = _words(
    "Abbott Berger Chen Diaz Eriksen Fischer Gupta Haddad Ito Jensen Kaya Lopez Moreau Novak Okafor Petrov Rossi Silva"
    " Tanaka Weber"
)


@dataclass(frozen=True, slots=True)
class Person:
    id: str
    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Company:
    org: str
    name: str
    email: str
    people: tuple[Person, ...]
    """The first one owns the organization."""


def companies(count: int, seed: str) -> list[Company]:
    """So many, each with a name of its own."""
    draw = random.Random(f"{seed}/companies")  # noqa: S311  # repeatable, not secret
    names = [f"{first} {second}" for first in _FIRST for second in _SECOND]
    return [_company(name, random.Random(f"{seed}/{name}")) for name in draw.sample(names, count)]  # noqa: S311  # likewise


def _company(name: str, draw: random.Random) -> Company:
    org = name.lower().replace(" ", "-")
    domain = f"{org}.example"
    people = []
    for number in range(1, draw.choice((1, 2, 2, 3, 3, 4, 6)) + 1):
        given, family = draw.choice(_GIVEN), draw.choice(_FAMILY)
        people.append(Person(f"u_{org}_{number}", f"{given} {family}", f"{given}.{family}.{number}@{domain}".lower()))
    return Company(org, name, f"billing@{domain}", tuple(people))
