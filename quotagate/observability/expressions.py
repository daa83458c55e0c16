"""The names in PromQL: which metrics, labels and values an expression is about, and whether there are such. Pure.

This reads names only. Whether the rest is PromQL says promtool.
"""

import difflib
import re
from collections.abc import Collection, Iterator
from typing import Final

from common.exposition import Family
from gateway.observe.record import ADMITTED, DEGRADED, EXEMPT, FROM_MEMORY, LOCAL, REPLAYED, SHADOW, verdict_of
from quota.problems import CATALOGUE
from quotagate.observability.catalogue import BY_NAME, BY_SAMPLE

NAME: Final = re.compile(r"\bquotagate[a-z0-9_]*(?::[a-z0-9_]+)*\b")
_SELECTOR: Final = re.compile(rf"({NAME.pattern})\s*(?:\{{([^}}]*)\}})?")
_MATCHER: Final = re.compile(r'\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_OF_PROMETHEUS: Final = frozenset({"instance", "job"})
_PLAIN: Final = re.compile(r"[a-z0-9_|]+")

VERDICTS: Final = frozenset(
    {
        *(verdict_of(problem).decode() for problem in CATALOGUE.values()),
        *(verdict.decode() for verdict in (ADMITTED, EXEMPT, FROM_MEMORY, LOCAL, REPLAYED, DEGRADED)),
    }
)


def faults(expr: str, recorded: Collection[str] = ()) -> Iterator[str]:
    """What an expression names that does not exist. `recorded`: series that rules make."""
    labels: set[str] = set()
    for match in _SELECTOR.finditer(_without_strings_outside_of_selectors(expr)):
        name, matchers = match.groups()
        if name in recorded:
            labels |= {"slo"}
            continue
        family = BY_SAMPLE.get(name)
        if family is None:
            yield _unknown(name)
            continue
        allowed = {*family.labels, *_OF_PROMETHEUS, *({"le"} if name.endswith("_bucket") else ())}
        labels |= allowed
        yield from _label_faults(family, allowed, matchers or "")
    for grouping in _GROUPING.finditer(expr):
        for label in filter(None, (each.strip() for each in grouping[1].split(","))):
            if labels and label not in labels:
                yield f"no metric of the expression has the label {label}"


def _label_faults(family: Family, allowed: Collection[str], matchers: str) -> Iterator[str]:
    for matcher in _MATCHER.finditer(matchers):
        label, _, value = matcher.groups()
        if label not in allowed:
            yield f"{family.name} has no label {label} (its labels: {', '.join(family.labels) or 'none'})"
        elif label == "verdict" and _PLAIN.fullmatch(value):
            yield from (f"there is no verdict {word}" for word in value.split("|") if not _is_verdict(word))
        elif label == "le" and _PLAIN.fullmatch(value) is None and value not in (*family.buckets, "+Inf"):
            yield f"{family.name} has no bucket {value}"


def _is_verdict(word: str) -> bool:
    return word.removeprefix(SHADOW.decode()) in VERDICTS


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, BY_SAMPLE, n=1)
    if name in BY_NAME:
        return f"{name} is a histogram: _bucket, _sum or _count is missing"
    return f"no metric is called {name}" + (f" (did you mean {near[0]}?)" if near else "")


def _without_strings_outside_of_selectors(expr: str) -> str:
    """`up{job="quotagate-gateway"}` names no metric of ours."""
    return re.sub(r"\b(?!quotagate)[a-zA-Z_:][\w:]*\s*\{[^}]*\}", lambda match: _STRING.sub('""', match[0]), expr)
