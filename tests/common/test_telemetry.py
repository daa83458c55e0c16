"""The promise: each log line says which plane it is of."""

import json
import subprocess
import sys

LOGS = """
import logging, threading, structlog
from common.telemetry import log_json
log_json("gateway")
for line in (lambda: structlog.get_logger().error("ours"), lambda: logging.getLogger("theirs").error("of a library")):
    for run in (line, threading.Thread(target=line).start):
        run()
"""


def test_each_line_says_its_plane_also_one_of_a_thread() -> None:
    done = subprocess.run([sys.executable, "-c", LOGS], capture_output=True, text=True, timeout=60, check=True)
    entries = [json.loads(line) for line in done.stderr.splitlines()]
    assert [each["plane"] for each in entries] == ["gateway"] * 4
    # In any order: threads write when they come to it.
    assert sorted(each["message"] for each in entries) == ["of a library", "of a library", "ours", "ours"]
