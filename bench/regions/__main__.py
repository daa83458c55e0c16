"""Random runs of several regions and their home: `python -m bench.regions`.

    python -m bench.regions [--runs 1000] [--connected 50] [--seed 0]

In each run two to four regions charge one organization, over the real rules of the home's book and of what a region
needs (control/regions/), in simulated time: partitions, agents and ledgers that end and forget, transactions that do
not commit, messages that are lost, doubled and late, clocks that are off by an hour, too fast, and set. It exits with 1
where a unit was charged beyond a limit, a region enforced what was not reserved for it, or less than 99.5 % of a quota
was sold by regions that were connected.
"""

import argparse
import sys
from dataclasses import dataclass, field

from bench import report
from bench.regions.runs import STEPS, Connected, NotReserved, connected, faulty, over, until_nothing_is_sold
from bench.regions.world import ALLOWANCE, TICK_SECONDS
from bench.report import Bars, Goal, goals_table, table

SOLD_MIN = 99.5


@dataclass
class Failing:
    """Runs in which anything fails."""

    runs: int = 0
    over: int = 0
    charged: int = 0
    refused: int = 0
    not_reserved: list[str] = field(default_factory=list)

    def add(self, seed: int) -> None:
        world = faulty(seed)
        self.runs += 1
        try:
            for _ in range(STEPS):
                world.step()
                self.over += over(world)
        except NotReserved as e:
            self.not_reserved.append(f"run {seed}: {e}")
        self.charged += sum(region.sold for region in world.regions)
        self.refused += sum(region.refused for region in world.regions)


@dataclass
class Whole:
    """Runs in which nothing fails."""

    sold: list[float] = field(default_factory=list)
    """Percent of each quota, at its exhaustion."""
    before_refusal: list[float] = field(default_factory=list)
    """The same, when the first request found too little in its region."""
    asked: list[float] = field(default_factory=list)
    """Percent of the requests that found too little in their region, while units were left."""

    def add(self, seed: int) -> None:
        world = connected(seed)
        asked, taken = _until_sold(world)
        whole = world.limits[ALLOWANCE]
        self.sold.append(100 * world.sold() / whole)
        first = world.first_refused_at
        self.before_refusal.append(100 * (world.sold() if first is None else first) / whole)
        self.asked.append(100 * asked / max(1, asked + taken))


def _until_sold(world: Connected) -> tuple[int, int]:
    """Requests that were refused before all was sold, and units that were."""
    asked, whole = 0, world.limits[ALLOWANCE]
    for _ in range(int(3600 / TICK_SECONDS)):
        if world.sold() >= whole:
            break
        before = sum(region.refused for region in world.regions)
        world.step()
        if world.sold() < whole:
            asked += sum(region.refused for region in world.regions) - before
    until_nothing_is_sold(world)
    return asked, world.sold()


def goals(failing: Failing, whole: Whole) -> list[Goal]:
    judged = [
        Goal(f"units charged beyond limits in {failing.runs:,} runs", failing.over, 0),
        Goal("runs that enforced what was not reserved", len(failing.not_reserved), 0),
    ]
    if whole.sold:
        spread = min(whole.sold), max(whole.sold)
        judged.append(Goal("sold at exhaustion, the worst run", spread[0], SOLD_MIN, "%", at_least=True, spread=spread))
    return judged


def tables(failing: Failing, whole: Whole) -> list[str]:
    head = ["runs in which anything fails", "units charged", "requests refused", "over"]
    shown = [table(head, [[f"{failing.runs:,}", f"{failing.charged:,}", f"{failing.refused:,}", f"{failing.over:,}"]])]
    if whole.sold:
        head = ["runs in which nothing fails", "of the quota", "the worst", "the middle"]
        rows = [
            [str(len(values)), about, f"{min(values) if least else max(values):.1f} %", f"{_middle(values):.1f} %"]
            for about, values, least in (
                ("sold at exhaustion", whole.sold, True),
                ("sold when the first request found too little in its region", whole.before_refusal, True),
                (
                    "requests that found too little there; all others wait for nobody",
                    whole.asked,
                    False,
                ),
            )
        ]
        shown.append(table(head, rows))
    return [*shown, *failing.not_reserved]


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.regions", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000, help="in which anything fails: four a second")
    parser.add_argument("--connected", type=int, default=50, help="runs in which nothing does")
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    given = parser.parse_args()
    failing, whole = Failing(), Whole()
    for seed in range(given.seed, given.seed + given.runs):
        failing.add(seed)
        if failing.runs % 100 == 0:
            print(f"{failing.runs} runs, over {failing.over}", flush=True)
    for seed in range(given.seed, given.seed + given.connected):
        whole.add(seed)
    judged, shown = goals(failing, whole), tables(failing, whole)
    print("\n" + "\n\n".join([*shown, goals_table(judged)]))
    bars = (
        [Bars("sold at exhaustion, %", {"worst": min(whole.sold), "middle": _middle(whole.sold)})] if whole.sold else []
    )
    raw = {"options": vars(given), "sold": whole.sold, "before_refusal": whole.before_refusal, "asked": whole.asked}
    folder = report.write("regions", "Several regions, one quota", shown, bars, judged, raw, report.machine())
    print(f"Written to {folder.relative_to(report.ROOT)}/regions.json, .md and .svg")
    return 0 if all(goal.met for goal in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
