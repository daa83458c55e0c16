"""A process with one worker: it stands by, serves, and goes on with what it has accepted before it ends."""

import asyncio
import os
import signal
import socket
from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn._subprocess import subprocess_started
from uvicorn.supervisors.multiprocess import Process

from gateway.process.loading import LoadingProcess

CUT_SECONDS = 2.0  # at the end, for what is written already
TUNNELS_SHARE = 5 / 6  # of a stopping worker's time; the rest of it is for the close
RETIRE = signal.SIGUSR2
END_SILENT = signal.SIGUSR1  # no request that comes from now on should be decided by this worker's settings
DATE_SECONDS = 1.0  # between two values of `Date`
ACCEPT_TURNS = 3  # of the loop: one to see the kernel's queue, one to accept, one to be sure


class Server(uvicorn.Server):
    """One worker's. It answers what it has accepted before it goes. SIGTERM gives that `stop_seconds`; to one that was
    replaced (SIGUSR2) the supervisor sends it when its time is over."""

    _ends: asyncio.TimerHandle | None = None
    _stopping = False

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._exits = asyncio.Event()

    def handle_exit(self, sig: int, frame: Any) -> None:
        if sig == signal.SIGINT:  # Ctrl-C reaches the whole group; the supervisor decides, and sends SIGTERM
            return
        super().handle_exit(sig, frame)
        self._stopping = True
        if self.started:
            self._worker.loop.call_soon_threadsafe(self._exits.set)
            if self._worker.draining:
                self._worker.loop.call_soon_threadsafe(self._end_in_time)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(RETIRE, self._retire)
        loop.add_signal_handler(END_SILENT, self._end_silent)
        await super().startup(sockets=[])  # which makes the worker
        for each in sockets or []:
            self.servers.append(await self._served(loop, each))

    async def _served(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> Any:
        """Like uvicorn's own, unless a connection has to show something before it is read."""
        config, entrance = self.config, self._worker.entrance

        def make() -> Any:
            return config.http_protocol_class(config, self.server_state, self.lifespan.state)  # type: ignore[call-arg]  # uvicorn's own take it by keyword

        if entrance is None:
            return await loop.create_server(make, sock=listener, backlog=config.backlog)
        from gateway.listener.acceptor import Acceptor  # with what only such a listener needs

        acceptor = Acceptor(loop, listener, entrance, self.server_state.connections, make)
        acceptor.start(config.backlog)
        return acceptor

    async def main_loop(self) -> None:
        """Until the worker ends. uvicorn's own looks ten times a second whether it should."""
        while not await self.on_tick(0):  # which is a tick that sets `Date`
            with suppress(TimeoutError):
                async with asyncio.timeout(DATE_SECONDS):
                    await self._exits.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._worker.draining = True
        self._worker.told_routes.close()
        self._worker.upstream_faults.close()
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        if self._stopping:
            self._end_in_time()
        await super().shutdown(sockets)

    @property
    def _worker(self) -> Any:
        return self.lifespan.state["worker"]

    def _retire(self) -> None:
        self.should_exit = True
        self._exits.set()

    def _end_silent(self) -> None:
        worker = self._worker
        worker.idle_end = min(worker.idle_end, worker.loop.time() + worker.intervals.client_idle_drain_seconds)
        if worker.draining:  # else they are told when it is
            for connection in self._connections():
                connection.shutdown()

    def _end_in_time(self) -> None:
        """What is under way has so long from now on, and no longer."""
        if self._ends is not None:
            return
        worker = self._worker
        drain, now = worker.settings.drain, worker.loop.time()
        seconds = drain.stop_seconds
        worker.tunnels_end = now + seconds * TUNNELS_SHARE
        worker.idle_end = min(worker.idle_end, now + drain.idle_seconds)
        for connection in self._connections():
            connection.shutdown()
        self._ends = worker.loop.call_later(seconds, self._end)

    def _end(self) -> None:
        for connection in self._connections():
            connection.stop()
        self._ends = self._worker.loop.call_later(CUT_SECONDS, self._abort)

    def _abort(self) -> None:
        """A client that does not take the end of its answer holds the worker up no longer."""
        for connection in self._connections():
            connection.abort()

    def _connections(self) -> list[Any]:
        return list(self.server_state.connections)


class WorkerProcess(Process):
    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], *, stands_by: bool = False) -> None:
        """`stands_by`: it loads everything, and begins to serve when it is released."""
        self._stands_by = stands_by
        super().__init__(config, sockets)
        given = {"config": config, "target": self.target, "sockets": sockets, "stdin_fileno": None}
        self.process = LoadingProcess(target=subprocess_started, kwargs=given)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "process"}  # which is that around it

    def release(self) -> None:
        self.parent_conn.send(b"serve")

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = Server(config=self.config)
        return self._server

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        self.parent_conn.close()  # this process's copy, so that the parent's end shows
        if self._stands_by:
            self._stand_by()
        super().target(sockets)

    def _stand_by(self) -> None:
        for sig in (signal.SIGINT, signal.SIGHUP):  # of a terminal, to the whole group: the supervisor decides
            signal.signal(sig, signal.SIG_IGN)
        self.config.load()
        try:
            self.child_conn.recv()
        except (EOFError, OSError):
            os._exit(0)  # the supervisor is gone

    def always_pong(self) -> None:
        try:
            super().always_pong()
        except (EOFError, OSError):
            os.kill(os.getpid(), signal.SIGTERM)  # the supervisor is gone, and nobody would ever stop this worker
