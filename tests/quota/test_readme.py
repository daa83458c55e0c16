"""The worked examples of quota/README.md, step by step on a real ledger."""

import re
from pathlib import Path
from typing import Any

import pytest

from quota import keys
from quota.calls.leases import LeaseTerms
from quota.model import Admitted, Decision, Elsewhere, Exhausted, Grant, MeterLimit, OveragePolicy, Settlement
from quota.periods import Period
from tests.quota.books import Books

README = Path(__file__).parents[2] / "quota" / "README.md"
CALLS = "api_calls"


def examples() -> dict[str, list[list[str]]]:
    """Heading -> rows of step, answer and four numbers."""
    text = README.read_text(encoding="utf-8").partition("## Worked examples")[2].partition("\n## ")[0]
    tables = {}
    for section in text.split("\n### ")[1:]:
        lines = [line for line in section.splitlines() if line.startswith("|")]
        tables[section.splitlines()[0]] = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return tables


class Reader:
    """Does what a row says."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.terms: dict[str, Any] = {}
        self.receipts: dict[str, bytes] = {}
        self.grants: list[Grant] = []
        self.leased, self.leases = False, 0

    async def publish(self) -> str:
        published = await self.books.publish(**self.terms, grants=tuple(self.grants), leased=self.leased)
        return "installed" if published else "not newer"

    async def lease(self, units: int) -> str:
        books, self.leases = self.books, self.leases + 1
        limit = self.terms["meters"][0].allowance
        elsewhere = {CALLS: Elsewhere(limit - units, limit - units, 0, 0)}
        meters = (MeterLimit(CALLS, units, 0),)
        terms = LeaseTerms(books.version, 0, self.leases, books.now, 60, books.periods, meters, elsewhere=elsewhere)
        await books.ledger.redis.set(keys.generation_key(keys.shard_of(books.org, books.ledger.shards)), "generation")
        return "installed" if await books.ledger.lease(books.org, terms, "generation") else "not newer"

    async def do(self, step: str) -> str:
        books = self.books
        if m := re.fullmatch(r"lease (\d+)", step):
            return await self.lease(int(m[1]))
        if step == "lapse":
            return "ended" if await books.ledger.lapse([books.org]) else "none"
        if m := re.fullmatch(r"publish (\d+) (\w+)(?: cap (\d+))?( in a region)?", step):
            cap = int(m[3]) if m[3] else None
            self.terms |= {"meters": (MeterLimit(CALLS, int(m[1]), cap),), "policy": OveragePolicy(m[2])}
            self.leased = m[4] is not None
        elif m := re.fullmatch(r"grant (\w+) (\d+)", step):
            self.grants.append(Grant(m[1], CALLS, int(m[2]), books.now + 600 + len(self.grants)))
        elif m := re.fullmatch(r"expire (\w+)", step):
            self.grants = [Grant(g.id, CALLS, g.units, books.now) if g.id == m[1] else g for g in self.grants]
        elif step == "renew":
            self.terms["periods"] = (Period(books.now - 1, books.periods[0].end),)
        elif m := re.fullmatch(r"take (\d+)(?: as (\w+))?", step):
            decision = await books.take(int(m[1]))
            if m[2]:
                assert isinstance(decision, Admitted)
                self.receipts[m[2]] = decision.receipt
            return in_words(decision)
        elif m := re.fullmatch(r"settle (\w+) (\d+)", step):
            return settled(await books.settle(self.receipts[m[1]], api_calls=int(m[2])))
        else:
            raise AssertionError(f"no such step: {step}")
        return await self.publish()

    async def snapshot(self) -> list[int]:
        snapshot = await self.books.ledger.peek(self.books.org)
        assert snapshot is not None
        assert snapshot.period is not None
        [balance] = snapshot.balances()
        usage = [u for u in snapshot.usage if u.period_start == snapshot.period.start]
        counted = [usage[0].used, usage[0].burnt, usage[0].overage] if usage else [0, 0, 0]
        return [*counted, balance.remaining]


def in_words(decision: Decision) -> str:
    if isinstance(decision, Exhausted):
        return "over limit" if decision.over_limit else "exhausted"
    return type(decision).__name__.lower()


def settled(settlement: Settlement) -> str:
    if not settlement.applied:
        return "settled before"
    short = settlement.shortfall.get(CALLS)
    return f"{settlement.units[CALLS]:+d}" + (f" short {short}" if short else "")


@pytest.mark.parametrize("heading", examples())
async def test_a_worked_example_is_what_the_ledger_does(books: Books, heading: str) -> None:
    reader = Reader(books)
    rows = examples()[heading]
    assert rows
    for step, answer, *numbers in rows:
        assert (step, await reader.do(step)) == (step, answer)
        assert (step, await reader.snapshot()) == (step, [int(n) for n in numbers])
