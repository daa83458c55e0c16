"""Refusals of the demo history, as gateways would have told of them and the control plane would have kept them."""

from datetime import date
from typing import Final

from control import sql
from control.db import Connection
from control.entitlements import published_terms
from control.moments import moment
from control.sql.decisions import Refusal
from devstack.history.traffic import Call
from quota import problems
from quota.kept_refusals import words_of
from quota.model import Decision, Entitlement
from quota.refusals import refusal_of

ROUTE: Final = "/"
GATEWAY: Final = "gateway-1"


class Refusals:
    """Those that are not written yet."""

    def __init__(self, since: float) -> None:
        """`since`: what was refused earlier is not kept any more."""
        self._since = since
        self._rows: list[Refusal] = []
        self._published: dict[tuple[str, int], tuple[float, Entitlement]] = {}
        self._count = 0

    def note(self, call: Call, entitlement: Entitlement, decision: Decision, costs: dict[str, int]) -> None:
        """A call that was refused; in shadow mode it went on all the same."""
        at, org = call.at_ms / 1000, entitlement.org
        if at < self._since:
            return
        self._count += 1
        told = refusal_of(decision, costs)
        self._published.setdefault((org, entitlement.version), (at, entitlement))
        self._rows.append(
            Refusal(
                at=moment(at),
                request_id=f"history-{org}-refused-{self._count}",
                correlation=None,
                org=org,
                key_id=call.key,
                user_id=call.user,
                route=ROUTE,
                method="GET",
                status=told.problem.status,
                verdict="exhausted" if told.problem is problems.QUOTA_EXCEEDED else "cost_above_limit",
                shadow=entitlement.shadow,
                detail=told.detail,
                charges=[[meter, units] for meter, units in costs.items()],
                version=entitlement.version,
                limits="",
                said=words_of(decision),
                gateway=GATEWAY,
            )
        )

    @property
    def wait(self) -> bool:
        return bool(self._rows)

    async def write(self, connection: Connection) -> None:
        """In the transaction of the usage that they belong to."""
        rows, self._rows = self._rows, []
        published, self._published = self._published, {}
        days: set[date] = {row.at.date() for row in rows}
        for day in sorted(days):
            await sql.decisions.create_day(connection, day=day)
        for (org, version), (at, entitlement) in published.items():
            terms = published_terms.stored(entitlement)
            await sql.decisions.keep_published(connection, org=org, version=version, at=moment(at), terms=terms)
        if rows:
            await sql.decisions.insert_refusals(connection, rows)
        for row in rows:
            minute = row.at.replace(second=0, microsecond=0)
            await sql.decisions.count_refusals(connection, minute=minute, orgs=[row.org or ""], refused=[1], kept=[1])
