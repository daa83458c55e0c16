"""The kinds of users. Each call is checked: an answer that is not what it must be is a failure.

A refusal for the plan or the quota (402, 429) is an answer of its own and no failure: it is counted under the name of
the call with `refused` behind it.
"""

import json
import os
import random
import time
from contextlib import suppress
from hashlib import sha256
from typing import Any

import gevent
from locust import FastHttpUser, between, constant_pacing, task

from bench.loadtest.callers import Caller, Callers, Crowd
from bench.loadtest.heads import fields, target

REFUSED = (402, 429)
BURST = 20  # calls at once
UPLOAD_BYTES = 16 * 1024, 256 * 1024
CHANGE_SECONDS = 10.0  # until a change that is not enforced counts as a failure
POLL_SECONDS = 0.005


class GatewayUser(FastHttpUser):
    """One of many clients. `callers` is set when the callers are known, before the first user is there."""

    abstract = True
    callers: Callers
    crowd: Crowd
    network_timeout = connection_timeout = 30.0

    def on_start(self) -> None:
        self.client_kind = random.randrange(4)  # noqa: S311 - no secret

    def call(self, name: str, caller: Caller, path: str | None = None, method: str = "GET", **more: Any) -> int:
        """One request; its status, 0 where there was no answer."""
        where = target(random.choice(self.callers.paths.calls)) if path is None else path  # noqa: S311 - no secret
        headers = fields(caller.credential, self.client_kind) | more.pop("headers", {})
        with self.client.request(method, where, name, headers=headers, catch_response=True, **more) as answer:
            if answer.status_code in REFUSED:
                answer.request_meta["name"] = f"{name}, refused"
                answer.success()
            elif answer.status_code != 200:
                answer.failure(f"status {answer.status_code}" if answer.status_code else f"no answer: {answer.error}")
            return int(answer.status_code)

    def report(self, kind: str, name: str, began: float, failure: str | None = None, size: int = 0) -> None:
        """Of what is no request of `client`. `began`: by time.perf_counter."""
        took_ms = (time.perf_counter() - began) * 1000
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=took_ms,
            response_length=size,
            exception=RuntimeError(failure) if failure else None,
            context={},
        )


class SteadyUser(GatewayUser):
    """A call a second, of any organization: few of them make most of the calls (Zipf)."""

    weight = 70
    wait_time = constant_pacing(1)

    @task(4)
    def read(self) -> None:
        self.call("call", self.crowd.any())

    @task(1)
    def write(self) -> None:
        content = {"name": f"thing {time.time_ns()}", "labels": {"team": "search"}, "note": "n" * random.randrange(140)}  # noqa: S311 - no secret
        headers = {"Content-Type": "application/json"}
        self.call("call with a body", self.crowd.any(), method="POST", data=json.dumps(content), headers=headers)


class HotUser(GatewayUser):
    """One organization calls as often as it can: all its charges meet in one place."""

    weight = 8
    wait_time = constant_pacing(0.2)

    @task
    def read(self) -> None:
        self.call("one hot organization", self.callers.ordinary[0])


class BurstUser(GatewayUser):
    """Nothing for a while, and then twenty calls at once."""

    weight = 4
    wait_time = between(5, 15)
    concurrency = BURST

    @task
    def burst(self) -> None:
        caller = self.crowd.any()
        gevent.joinall([gevent.spawn(self.call, "burst", caller) for _ in range(BURST)])


class ExhaustedUser(GatewayUser):
    """Goes on when its organization has used up what it has."""

    weight = 8
    wait_time = constant_pacing(1)

    @task
    def read(self) -> None:
        self.call("exhausted organization", random.choice(self.callers.exhausted))  # noqa: S311 - no secret


class StreamUser(GatewayUser):
    """Reads server-sent events to their end; the first one has a line of its own."""

    weight = 3
    wait_time = between(1, 3)

    @task
    def read(self) -> None:
        caller, began, received = self.crowd.any(), time.perf_counter(), b""
        headers = fields(caller.credential, self.client_kind) | {"Accept": "text/event-stream"}
        path = str(self.callers.paths.stream)
        given: dict[str, Any] = {"headers": headers, "stream": True, "catch_response": True}
        with self.client.request("GET", path, "stream, head", **given) as head:
            if head.status_code in REFUSED:
                head.request_meta["name"] = "stream, refused"
                head.success()
                return
            if head.status_code != 200:
                head.failure(f"status {head.status_code}")
                return
            for chunk in head.iter_content(decode_content=False):
                received += chunk
        self.report("GET", "stream, to its end", began, None if received.endswith(b"\n\n") else "cut", len(received))


class UploadUser(GatewayUser):
    """Sends bodies that are not text, and compares their digest with what the sample upstream says."""

    weight = 3
    wait_time = between(1, 3)

    @task
    def send(self) -> None:
        body = os.urandom(random.randint(*UPLOAD_BYTES))  # noqa: S311 - no secret
        headers = fields(self.crowd.any().credential, self.client_kind) | {"Content-Type": "application/octet-stream"}
        path = str(self.callers.paths.upload)
        with self.client.request("PUT", path, "upload", data=body, headers=headers, catch_response=True) as answer:
            if answer.status_code in REFUSED:
                answer.request_meta["name"] = "upload, refused"
                answer.success()
            elif answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
            elif path.startswith("/anything") and answer.json()["sha256"] != sha256(body).hexdigest():
                answer.failure("the upstream received another body")


class WebSocketUser(GatewayUser):
    """Opens a tunnel, has ten messages echoed, and closes it."""

    weight = 3
    wait_time = between(1, 3)
    messages = 10

    @task
    def talk(self) -> None:
        import websocket  # brought by locust

        sent = fields(self.crowd.any().credential, self.client_kind)
        headers = {name: sent[name] for name in ("Authorization", "User-Agent")}
        url = "ws" + str(self.callers.gateway).removeprefix("http") + str(self.callers.paths.websocket)
        began = time.perf_counter()
        try:
            tunnel = websocket.create_connection(url, timeout=30, header=headers)
        except websocket.WebSocketBadStatusException as e:
            refused = e.status_code in REFUSED
            failure = None if refused else f"status {e.status_code}"
            self.report("WS", "tunnel, refused" if refused else "tunnel, opened", began, failure)
            return
        except (OSError, websocket.WebSocketException) as e:
            self.report("WS", "tunnel, opened", began, str(e))
            return
        self.report("WS", "tunnel, opened", began)
        try:
            for number in range(self.messages):
                sent, began = f"message {number}", time.perf_counter()
                tunnel.send(sent)
                received = tunnel.recv()
                self.report("WS", "tunnel, echo", began, None if received == sent else f"{received!r}", len(received))
        except (OSError, websocket.WebSocketException) as e:
            self.report("WS", "tunnel, echo", began, str(e))
        finally:
            with suppress(OSError, websocket.WebSocketException):
                tunnel.close()


class EntitlementChangeUser(GatewayUser):
    """Takes an organization's allowance away and gives it back while others call, and measures how soon a gateway does
    as it was said. There is one of them."""

    fixed_count = 1
    wait_time = between(0.5, 1.5)

    @task
    def change(self) -> None:
        caller, callers = self.callers.changing, self.callers
        assert caller is not None  # noqa: S101 - without it this class is left out
        headers = {"Authorization": f"Bearer {callers.admin_token}"}
        for allowance, admitted in ((0, False), (10**12, True)):
            terms = {"plan": callers.plan, "policy": "HARD_STOP", "meters": {"api_calls": allowance}}
            url = f"{callers.control}/v1/entitlements/{caller.org}"
            began = time.perf_counter()
            given: dict[str, Any] = {"json": terms, "headers": headers, "catch_response": True}
            with self.client.put(url, name="entitlement changed", **given) as said:
                if said.status_code != 200:
                    said.failure(f"status {said.status_code}")
                    return
            self._wait_for(caller, admitted=admitted, began=began)

    def _wait_for(self, caller: Caller, *, admitted: bool, began: float) -> None:
        expected = (200,) if admitted else REFUSED
        while time.perf_counter() - began < CHANGE_SECONDS:
            if self.call("call of a changed organization", caller) in expected:
                self.report("PUT", "change, until it is enforced", began)
                return
            gevent.sleep(POLL_SECONDS)
        failure = f"not {'admitted' if admitted else 'refused'} within {CHANGE_SECONDS:g} s"
        self.report("PUT", "change, until it is enforced", began, failure)
