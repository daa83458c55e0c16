"""Locust's own way in: its page, its options, and its distributed mode. `make load` does all of it by one command.

    locust -f bench/locustfile.py             against `quotagate up`, by the ready.json that QUOTAGATE_READY names
    locust -f bench/locustfile.py --host URL --tokens FILE    against any gateway, with a token or API key a line
    QUOTAGATE_LOAD_SHAPE=day locust -f bench/locustfile.py --headless --users 500 --run-time 10m

It runs from the folder above, whose modules it imports.
"""

import asyncio
import json
import os
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from bench.loadtest.callers import Callers, CallersUnreadable, Crowd, Paths, from_tokens, read_ready
from bench.loadtest.curves import CURVES
from bench.loadtest.observing import Observation
from bench.loadtest.preparing import prepare
from bench.loadtest.shapes import shape
from bench.loadtest.users import (
    BurstUser,
    EntitlementChangeUser,
    ExhaustedUser,
    GatewayUser,
    HotUser,
    SteadyUser,
    StreamUser,
    UploadUser,
    WebSocketUser,
)

__all__ = [
    "BurstUser",
    "EntitlementChangeUser",
    "ExhaustedUser",
    "HotUser",
    "SteadyUser",
    "StreamUser",
    "UploadUser",
    "WebSocketUser",
]
SHAPE = os.environ.get("QUOTAGATE_LOAD_SHAPE", "")  # locust asks for the shape before it reads its options
RESULT = os.environ.get("QUOTAGATE_LOAD_RESULT")  # a file for the figures
CPU_SECONDS = 3.0

if SHAPE == "any":  # locust's page lets one choose
    globals().update({name.capitalize(): shape(name) for name in CURVES})
elif SHAPE in CURVES:
    globals()[SHAPE.capitalize()] = shape(SHAPE)
elif SHAPE:
    sys.exit(f"QUOTAGATE_LOAD_SHAPE: {SHAPE!r} is none of {', '.join(CURVES)}")


@events.init_command_line_parser.add_listener
def options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("Quotagate")  # all of them texts: a master sends its options to its workers
    group.add_argument("--callers", env_var="QUOTAGATE_LOAD_CALLERS", help="what bench.loadtest --prepare wrote")
    where = "the ready.json of a `quotagate up` that runs"
    group.add_argument("--ready", env_var="QUOTAGATE_READY", default=".quotagate/ready.json", help=where)
    group.add_argument("--tokens", help="a token or an API key a line, for a gateway that is not ours")
    group.add_argument("--plan", default="bulk", help="of the organizations that are made")
    group.add_argument("--calls", help="paths to call, separated by commas; without it those of the sample upstream")
    group.add_argument("--stream-path", help="answers with events")
    group.add_argument("--upload-path", help="takes a body by PUT")
    group.add_argument("--websocket-path", help="echoes messages")


def paths_of(given: Namespace) -> Paths:
    """The sample upstream's, unless others are named: then what is not named is not there."""
    own = Paths() if given.calls is None else Paths(tuple(given.calls.split(",")), None, None, None)
    # The packaged settings upgrade nothing.
    return Paths(own.calls, given.stream_path or own.stream, given.upload_path or own.upload, given.websocket_path)


def callers_of(given: Namespace) -> Callers:
    """Raises CallersUnreadable."""
    if given.callers is not None:
        return Callers.read(Path(given.callers))
    if given.tokens is not None:
        return from_tokens(Path(given.tokens), given.host or "", paths_of(given))
    ready = read_ready(Path(given.ready))
    if given.host:
        ready |= {"gateway": given.host, "metrics": None}
    return asyncio.run(prepare(ready, Path(given.ready).parent, paths_of(given), given.plan))


def left_out(callers: Callers) -> dict[type[GatewayUser], str]:
    """The kinds of users that have nothing to do here, and why."""
    reasons: dict[type[GatewayUser], str] = {}
    if not callers.exhausted:
        reasons[ExhaustedUser] = "no organization is known to be exhausted"
    if callers.changing is None or callers.control is None:
        reasons[EntitlementChangeUser] = "there is no control plane whose admin token is known"
    for kind, path, flag in (
        (StreamUser, callers.paths.stream, "--stream-path"),
        (UploadUser, callers.paths.upload, "--upload-path"),
        (WebSocketUser, callers.paths.websocket, "--websocket-path"),
    ):
        if path is None:
            reasons[kind] = f"{flag} names no path"
    return reasons


@events.init.add_listener
def begin(environment: Environment, runner: Any, **_: Any) -> None:
    given = environment.parsed_options
    assert given is not None  # noqa: S101 - locust's own main has parsed them
    try:
        callers = callers_of(given)
    except CallersUnreadable as e:
        sys.stderr.write(f"{e}\n")
        sys.exit(2)
    GatewayUser.callers, GatewayUser.crowd = callers, Crowd(callers.ordinary)
    environment.host = environment.host or callers.gateway
    without = left_out(callers)
    environment.user_classes = [kind for kind in environment.user_classes if kind not in without]
    for offered in (environment.available_user_classes, environment.available_user_tasks):  # by the page
        for kind in without if offered else ():
            offered.pop(kind.__name__, None)
    said = [f"Left out: {kind.__name__}, since {reason}." for kind, reason in without.items()]
    usage = Usage()
    if isinstance(runner, WorkerRunner):
        environment.events.report_to_master.add_listener(usage.report)
    else:
        observe(environment, Observation(environment, callers, said), usage)


class Usage:
    """CPU of this process since it was last asked, in percent of a core."""

    def __init__(self) -> None:
        self._before = (time.process_time(), time.monotonic())

    def percent(self) -> float | None:
        """None where it is too soon to say."""
        cpu, now = time.process_time(), time.monotonic()
        if now - self._before[1] < CPU_SECONDS / 2:
            return None
        used = 100 * (cpu - self._before[0]) / (now - self._before[1])
        self._before = (cpu, now)
        return used

    def report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        data["cpu_percent"] = self.percent()


def observe(environment: Environment, observation: Observation, usage: Usage) -> None:
    """In the process that sums up."""

    def on_start(**_: Any) -> None:
        usage.percent()
        observation.start()

    def on_usage(**_: Any) -> None:
        percent = usage.percent()
        if percent is not None and not isinstance(environment.runner, MasterRunner):
            observation.used("this one", percent)

    def on_report(client_id: str, data: dict[str, Any], **_: Any) -> None:
        if data.get("cpu_percent") is not None:
            observation.used(client_id, data["cpu_percent"])

    def on_stop(**_: Any) -> None:
        on_usage()
        observation.stop()

    def on_quit(**_: Any) -> None:
        if environment.stats.total.num_requests == 0:
            if SHAPE != "any":  # a page may be closed before a test begins
                sys.stderr.write("No call was made: the test was over before anybody had an answer.\n")
                environment.process_exit_code = 1
            return
        summary = observation.summary()
        sys.stdout.write(f"\n{summary.text()}\n")
        sys.stdout.flush()
        if RESULT:
            Path(RESULT).write_text(json.dumps(summary.record(), indent=1) + "\n")
        environment.process_exit_code = 0 if summary.good else 1

    environment.events.test_start.add_listener(on_start)
    environment.events.test_stop.add_listener(on_stop)
    environment.events.usage_monitor.add_listener(on_usage)
    environment.events.worker_report.add_listener(on_report)
    environment.events.quitting.add_listener(on_quit)
