"""docs/metrics.md: the table of all metrics. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from common.exposition import Family

HEAD: Final = """\
# Metrics

All metrics of both planes, in Prometheus' text format. `quotagate observability render` writes this page from the
declarations in the code, and a test compares it with them and with what is really scraped.

Times are in seconds. `…_timestamp_seconds` is a moment, in seconds since 1970. A histogram has `_bucket`, `_sum` and
`_count`. No label has a value that clients can choose. What a store that is away would say is left out until it is
back. [observability](observability/) has the rules and dashboards that are made of these, [runbook.md](runbook.md)
says what to do about each alert.
"""
ABOUT: Final[Mapping[str, str]] = {
    "gateway": "The gateway: `/metrics` at `management.port`, of all workers together",
    "control": "The control plane: `/-/metrics`, of each process",
}


def table_of(planes: Mapping[str, tuple[Family, ...]]) -> str:
    return "\n".join([HEAD, *(line for plane, families in planes.items() for line in _of_plane(plane, families))])


def _of_plane(plane: str, families: tuple[Family, ...]) -> Iterator[str]:
    yield from (f"## {ABOUT[plane]}", "", "| metric | kind | labels | is |", "|---|---|---|---|")
    for family in families:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        yield f"| `{family.name}` | {family.kind} | {labels} | {family.about} |"
    yield ""
    for bounds in dict.fromkeys(family.buckets for family in families if family.buckets):
        yield f"Buckets of its histograms, in seconds: {', '.join(bounds)}."
    yield ""
