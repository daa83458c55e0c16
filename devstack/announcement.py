"""What `quotagate up` prints when everything answers: where it is, and lines to paste."""

import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from devstack import datadir
from devstack.datadir import DataDirectory


def command(started_as: str, interpreter: str) -> str:
    """The command as the shell that started us finds it again. `started_as`: sys.argv[0]."""
    program = Path(started_as)
    if program.name == "__main__.py":
        return f"{shlex.quote(interpreter)} -m {shlex.quote(program.parent.name)}"
    on_path = shutil.which(program.name)
    if on_path is not None and program.exists() and Path(on_path).samefile(program):
        return shlex.quote(program.name)
    return shlex.quote(started_as)


OF_ALL: Final = {"gateway": "gateways", "control": "controls", "metrics": "metrics_of_gateways"}
"""Where the facts have the addresses of all processes of a kind, the first one's among them."""


def lines(facts: Mapping[str, Any], data: DataDirectory, database_home: Path, *, seconds: float) -> Iterator[str]:
    quotagate = command(sys.argv[0], sys.executable)
    where = "" if data.path == datadir.DEFAULT.resolve() else f" --data-dir {shlex.quote(str(data.path))}"
    token = {entry["org"]: entry["token"] for entry in facts["orgs"] if entry["plan"] is not None}
    gateway, control = facts["gateway"], facts["control"]
    yield f"Quotagate is ready after {seconds:.1f} s. Ctrl-C stops everything; what it knows stays in {data.path}"
    yield ""
    for service in ("gateway", "control", "metrics", "upstream", "redis", "postgres", "stripe"):
        yield f"  {service:<9} {' '.join(facts.get(OF_ALL.get(service, ''), [facts[service]]))}"
        if service == "redis" and "redis_servers" in facts:
            yield f"  {'':<9} servers: {', '.join(facts['redis_servers'])}"
    yield f"  {'logs':<9} {data.log_of('*')}"
    yield f"  {'tokens':<9} {data.ready_file}  (the admin's, and one of each organization)"
    if not database_home.is_relative_to(data.path):
        yield f"  {'database':<9} {database_home}  (PostgreSQL's account cannot enter {data.path})"
    yield ""
    yield "The console, as an admin. The link signs in once, within 15 minutes; the next one comes from"
    yield f"`{quotagate} console-link{where}`:"
    yield f"  {facts['console']}"
    if facts["portal"] is not None:
        portal = facts["portal"]
        yield f"The customers' portal, signed in to as {portal['username']} with the password {portal['password']}:"
        yield f"  {portal['url']}"
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
        # Not the token itself: what is printed ends up in logs and in other people's sight.
        program = f'import json; print(json.load(open({json.dumps(str(data.ready_file))}))["admin_token"])'
        yield f'  curl -H "Authorization: Bearer $(python3 -c {shlex.quote(program)})" {control}/v1/entitlements/tiny'
    if facts["sign_up"] is not None:
        yield from _sign_up(facts["sign_up"], gateway, f"{quotagate} demo{where}")
    if not token:
        yield "The catalogue has none of the demo plans. An organization of your own, and a token for it:"
        yield f"  {quotagate} org create NAME --plan CODE{where}"
        yield f"  {quotagate} token mint NAME{where}"


def _sign_up(sign_up: Mapping[str, Any], gateway: str, demo: str) -> Iterator[str]:
    if "checkout" in sign_up:
        yield f"Sign {sign_up['org']} up: open this page and pay (no money moves); then its call is served:"
        yield f"  {sign_up['checkout']}"
    else:
        yield f"What {sign_up['org']} pays for, its plan, card and invoices; and a call of it:"
        yield f"  {sign_up['portal']}"
    yield f"  curl -i -H 'Authorization: Bearer {sign_up['token']}' {gateway}/anything"
    yield "The whole story, from sign-up to the end, played against this stack:"
    yield f"  {demo}"
