"""What `quotagate up` prints when everything answers: where it is, and lines to paste."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from devstack.datadir import DataDirectory


def lines(facts: Mapping[str, Any], data: DataDirectory, database_home: Path, *, seconds: float) -> Iterator[str]:
    token = {entry["org"]: entry["token"] for entry in facts["orgs"] if entry["plan"] is not None}
    gateway, control = facts["gateway"], facts["control"]
    yield f"Quotagate is ready after {seconds:.1f} s. Ctrl-C stops everything; what it knows stays in {data.path}"
    yield ""
    for service in ("gateway", "control", "metrics", "upstream", "redis", "postgres"):
        yield f"  {service:<9} {facts[service]}"
    yield f"  {'logs':<9} {data.log_of('*')}"
    yield f"  {'tokens':<9} {data.ready_file}"
    if not database_home.is_relative_to(data.path):
        yield f"  {'database':<9} {database_home}  (PostgreSQL's account cannot enter {data.path})"
    yield ""
    if "acme" in token:
        yield "A call of Acme, with what is left of its plan in the RateLimit fields:"
        yield f"  curl -i -H 'Authorization: Bearer {token['acme']}' {gateway}/anything"
    if "tiny" in token:
        yield "Tiny's plan ends after 100 calls; then the gateway refuses with 429:"
        yield (
            "  for call in $(seq 101); do curl -s -o /dev/null -w '%{http_code}\\n'"
            f" -H 'Authorization: Bearer {token['tiny']}' {gateway}/get; done | sort | uniq -c"
        )
        yield "What Tiny has left, as its admin sees it:"
        yield f"  curl -H 'Authorization: Bearer {facts['admin_token']}' {control}/v1/entitlements/tiny"
    if not token:
        yield "The catalogue has none of the demo plans. An organization of your own, and a token for it:"
        yield f"  quotagate org create NAME --plan CODE --data-dir {data.path}"
        yield f"  quotagate token mint --org NAME --data-dir {data.path}"
