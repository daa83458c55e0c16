"""What a benchmark leaves behind says what was measured, and nothing of whose machine it was."""

import json
import os
import platform
import socket
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench import report
from bench.report import Bars, Goal

FAST, SLOW = (
    Goal("CPU of a request", 0.8, 0.85, spread=(0.7, 0.9)),
    Goal("throughput", 0.4, 0.5, "GiB/s", at_least=True),
)
BARS = [Bars("CPU <us>", {"nginx": 30.0, "Quotagate": 60.0}), Bars("p50, us", {"nginx": 0.0, "Quotagate": 0.0})]


def test_a_missed_goal_is_told_plainly() -> None:
    assert FAST.met
    assert not SLOW.met
    table = report.goals_table([FAST, SLOW])
    assert "| throughput       | 0.40 GiB/s" in table
    assert "**missed**" in table
    assert table.endswith("1 of 2 goals are missed.")
    assert report.goals_table([FAST]).endswith("All goals are met.")


def test_a_goal_is_met_at_its_bound() -> None:
    assert Goal("at most", 2.2, 2.2).met
    assert Goal("at least", 0.5, 0.5, at_least=True).met


def test_every_row_of_a_table_has_the_heads_columns() -> None:
    lines = report.table(["a", "bb"], [["1", ""], ["long cell", "2"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert {line.count("|") for line in lines} == {3}


def test_a_chart_is_well_formed_and_has_a_bar_for_each_value() -> None:
    root = ET.fromstring(report.chart("A <title>", BARS))  # noqa: S314 - our own text
    bars = root.findall("{http://www.w3.org/2000/svg}rect")
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert len(widths) == 4
    assert widths[1] == pytest.approx(2 * widths[0])
    assert widths[2:] == [0, 0]


def test_results_hold_goals_rounds_and_the_machine_but_no_name_of_it(tmp_path: Path) -> None:
    raw = {"rounds": [1, 2]}
    folder = report.write("peers", "One request", ["a table"], BARS, [FAST, SLOW], raw, report.machine(), tmp_path)
    record = json.loads((folder / "peers.json").read_text())
    assert [goal["met"] for goal in record["goals"]] == [True, False]
    assert record["rounds"] == [1, 2]
    assert record["machine"].keys() >= {"cpu", "cores", "kernel", "python", "nginx", "valkey", "commit"}
    for written in folder.iterdir():
        text = written.read_text()
        assert str(report.ROOT) not in text
        assert str(Path.home()) not in text
        assert socket.gethostname() not in text
    assert {written.name for written in folder.iterdir()} == {"peers.json", "peers.md", "peers.svg"}


def test_a_result_keeps_an_earlier_one_of_the_same_day_under_its_time(tmp_path: Path) -> None:
    def written(rounds: list[int]) -> Path:
        return report.write("peers", "One request", [], BARS, [], {"rounds": rounds}, report.machine(), tmp_path)

    folder = written([1])
    first = folder / "peers.json"
    at = json.loads(first.read_text())["at"]
    first.write_text(first.read_text().replace(at, f"{at[:10]}T07:06:38Z"))
    (folder / "peers_quick.json").write_text("another benchmark's")
    assert written([2]) == folder
    kept = {file.name for file in folder.iterdir()} - {"peers.json", "peers.md", "peers.svg"}
    assert kept == {"peers-070638.json", "peers-070638.md", "peers-070638.svg", "peers_quick.json"}
    assert json.loads((folder / "peers.json").read_text())["rounds"] == [2]
    assert json.loads((folder / "peers-070638.json").read_text())["rounds"] == [1]
    assert "](peers-070638.svg)" in (folder / "peers-070638.md").read_text()
    assert "](peers.svg)" in (folder / "peers.md").read_text()


def test_files_that_do_not_say_when_they_were_written_are_kept_under_their_own_time(tmp_path: Path) -> None:
    folder = report.todays_folder("load", tmp_path)
    page = folder / "load.html"
    page.write_text("locust's")
    os.utime(page, (0, 12 * 3600 + 34 * 60 + 56))
    assert report.todays_folder("load", tmp_path) == folder
    assert [file.name for file in folder.iterdir()] == ["load-123456.html"]


def test_an_interpreter_that_cannot_run_the_gateway_is_named() -> None:
    with pytest.raises(SystemExit, match="no-such-python: a Python 3"):
        report.python_build("no-such-python")


def test_an_interpreter_of_no_package_is_not_called_debians(tmp_path: Path) -> None:
    """dpkg-query's complaint begins with a name and a colon, as its answer does."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho {platform.python_version()} None\n")
    python.chmod(0o755)
    assert "Debian" not in report.python_build(str(python))
