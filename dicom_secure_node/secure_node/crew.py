"""The worker processes of a node: started, given connections, replaced when one dies.

Rules, in order:

1. A connection goes to the worker with the fewest open ones.
2. A worker that ends, for whatever reason, is replaced; one that ended soon after its start after
   a pause, which doubles each time (`Pauses`).
3. `on_end` is called when a worker's process is gone and its last call is answered, and before
   its successor is started.
"""

from __future__ import annotations

import itertools
import logging
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from typing import Any

from dicom_secure_node.errors import ServiceUnavailable
from dicom_secure_node.node.context import Connection
from dicom_secure_node.secure_node.channel import Call, answer
from dicom_secure_node.secure_node.handing import Arrived, End, Last, Tell, give, pair

logger = logging.getLogger(__name__)

Launch = Callable[[Sequence[int]], subprocess.Popen[bytes]]

_PIPES = 4  # calls a worker can make at a time
_SETTLED = 10.0  # seconds a worker lives that has no trouble with its start
_LONGEST_PAUSE = 30.0
_CALL_SECONDS = 10.0  # that the last call of a worker may take


@dataclass(eq=False)
class Worker:
    """One worker process, as its supervisor sees it.

    Attributes
    ----------
    number : int
        From 1 on; its successor has the same.
    process : Popen
    hand : socket
        Takes connections, see `handing`.
    connections : dict
        What it has of them, by ID.
    places : Counter
        Places for passcode hashes it has taken, by address.
    ready, draining : bool
        It serves; it has said that it ends.
    given : int
        When it was last given a connection, as a count.
    started : float
        As `time.monotonic` says.
    calls : list of Thread
        They answer it.
    """

    number: int
    process: subprocess.Popen[bytes]
    hand: socket.socket
    connections: dict[str, Connection] = field(default_factory=dict)
    places: Counter[str] = field(default_factory=Counter)
    ready: bool = False
    draining: bool = False
    given: int = 0
    started: float = field(default_factory=time.monotonic)
    calls: list[threading.Thread] = field(default_factory=list)

    @property
    def ending(self) -> str:
        """Return how the process ended, in words."""
        code = self.process.returncode
        return f"by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with {code}"


class Pauses:
    """How long to wait before a worker is started again."""

    def __init__(self) -> None:
        self._quick = 0

    def after(self, lived: float) -> float:
        """Return the pause, in seconds, after one that lived for so many."""
        self._quick = 0 if lived >= _SETTLED else self._quick + 1
        return min(_LONGEST_PAUSE, 2.0 ** (self._quick - 1)) if self._quick else 0.0


class Crew:
    """Keeps `count` worker processes; safe to use from any thread.

    Parameters
    ----------
    count : int
    launch : callable
        Starts a process that inherits these descriptors: the hand, the turn, the pipes.
    turn : int
        Descriptor every worker gets, of a file to lock.
    calls : callable
        Returns what a worker may call.
    on_end : callable
        Told of a worker that has ended.
    """

    def __init__(
        self,
        count: int,
        launch: Launch,
        turn: int,
        calls: Callable[[Worker], Mapping[str, Call]],
        on_end: Callable[[Worker], None],
    ) -> None:
        self._count = count
        self._launch = launch
        self._turn = turn
        self._calls = calls
        self._on_end = on_end
        self._changed = threading.Condition()
        self._workers: dict[int, Worker] = {}
        self._watches: list[threading.Thread] = []
        self._failure: BaseException | None = None
        self._up = False  # the first ones are ready: from now on who dies is replaced
        self._over = threading.Event()
        self._turns = itertools.count(1)

    # -- their lives -----------------------------------------------------------------------

    def start(self) -> None:
        """Start all of them and return when they are ready.

        Raises
        ------
        SecureNodeError
            Why one of them cannot be.
        """
        for number in range(1, self._count + 1):
            try:
                worker = self._start(number)
            except OSError as exc:
                raise ServiceUnavailable("worker process", exc.strerror or str(exc)) from exc
            watch = threading.Thread(
                target=self._watch, args=(worker,), name=f"worker {number}", daemon=True
            )
            self._watches.append(watch)
            watch.start()
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._failure is not None
                    or sum(one.ready for one in self._workers.values()) == self._count
                )
            )
            if self._failure is not None:
                raise self._failure
            self._up = True

    def _start(self, number: int) -> Worker:
        ours, theirs = pair()
        pipes = [Pipe() for _ in range(_PIPES)]
        descriptors = [theirs.fileno(), self._turn, *(far.fileno() for _, far in pipes)]
        with theirs:
            process = self._launch(descriptors)
        worker = Worker(number, process, ours)
        with self._changed:
            self._workers[number] = worker
            if self._over.is_set():
                process.kill()  # `stop` did not know of it
        table = self._calls(worker)
        try:
            for near, far in pipes:
                far.close()
                thread = threading.Thread(
                    target=answer, args=(near, table), name=f"calls of worker {number}", daemon=True
                )
                thread.start()
                worker.calls.append(thread)
        except BaseException:  # nobody would answer it, nor see its end
            process.kill()
            process.wait()
            ours.close()
            raise
        return worker

    def _watch(self, worker: Worker) -> None:
        """Wait for the end of a worker and replace it, again and again; in a thread of its own."""
        pauses = Pauses()
        while True:
            worker.process.wait()
            with self._changed:
                worker.ready = False
                if not self._up and self._failure is None:
                    self._failure = ServiceUnavailable(
                        "worker process", f"it ended {worker.ending} before it was ready"
                    )
                self._changed.notify_all()
            worker.hand.close()
            for thread in worker.calls:  # what it asked for last may still be under way
                thread.join(_CALL_SECONDS)
            try:
                self._on_end(worker)
            except Exception:
                logger.exception("what worker %d has left could not be put in order", worker.number)
            pause = 0.0 if worker.draining else pauses.after(time.monotonic() - worker.started)
            successor = self._replaced(worker.number, pause)
            if successor is None:
                return
            worker = successor

    def _replaced(self, number: int, pause: float) -> Worker | None:
        """Start a successor after a pause, as soon as the system lets us; None: we are stopping."""
        while self._up and not self._over.wait(pause):
            try:
                return self._start(number)
            except (OSError, RuntimeError) as exc:  # processes, descriptors; threads
                logger.error("worker %d cannot be started: %s", number, exc)
                pause = _LONGEST_PAUSE
        return None

    def ready(self, worker: Worker) -> None:
        """Note that a worker can be given connections."""
        with self._changed:
            worker.ready = True
            self._changed.notify_all()

    def failed(self, worker: Worker, error: BaseException) -> None:
        """Note that a worker cannot start."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()
        if self._up:
            logger.error("worker %d cannot start: %s", worker.number, error)

    def drain(self, worker: Worker) -> None:
        """Give a worker nothing more, and tell it so."""
        with self._changed:
            worker.draining, worker.ready = True, False
            with suppress(OSError):  # it has ended
                give(worker.hand, Last())

    def stop(self, seconds: float) -> None:
        """Let all of them finish what is under way, for at most so long, and end them."""
        with self._changed:
            self._over.set()
            self._changed.notify_all()
            workers = list(self._workers.values())
        for worker in workers:
            if worker.ready:
                self.drain(worker)
            elif not worker.draining:
                worker.process.kill()  # it has nothing yet
        until = time.monotonic() + seconds
        for watch in self._watches:
            watch.join(max(0.0, until - time.monotonic()))
        for worker in self._workers.values():  # a successor that was just being started, too
            if worker.process.poll() is None:
                logger.error("worker %d does not end: killed", worker.number)
                worker.process.kill()
        for watch in self._watches:
            watch.join()

    # -- their connections -----------------------------------------------------------------

    def hand(self, sock: socket.socket, connection: Connection, address: Any) -> bool:
        """Give a connection to the least busy worker; wait for one to be ready.

        Returns
        -------
        bool
            False when none takes it, or none ever will.
        """
        with self._changed:
            while not self._over.is_set():
                able = [one for one in self._workers.values() if one.ready]
                if not able:
                    self._changed.wait()
                    continue
                worker = min(able, key=lambda one: (len(one.connections), one.given))
                worker.connections[connection.id] = connection
                worker.given = next(self._turns)
                try:
                    give(worker.hand, Arrived(connection, address), sock)
                    return True
                except ConnectionError:
                    del worker.connections[connection.id]
                    worker.ready = False  # it has ended, as its watch is about to see
                except OSError as exc:
                    # It has hundreds it has not looked at yet, and all others have as many.
                    logger.error("worker %d takes nothing: %s", worker.number, exc.strerror)
                    del worker.connections[connection.id]
                    return False
            return False

    def end(self, connection_id: str) -> bool:
        """Have a connection ended; return whether one of them has it."""
        with self._changed:
            for worker in self._workers.values():
                if connection_id in worker.connections:
                    with suppress(OSError):  # it has ended, and the connection with it
                        give(worker.hand, End(connection_id))
                    return True
        return False

    def tell(self, number: int) -> list[int]:
        """Have the figures of all that serve reported; return which those are."""
        with self._changed:
            asked = [one for one in self._workers.values() if one.ready]
            for worker in asked:
                with suppress(OSError):  # it has ended, or is stuck: nobody waits for ever
                    give(worker.hand, Tell(number))
            return [worker.number for worker in asked]

    def given_back(self, worker: Worker, connection_id: str) -> Connection | None:
        """Note that a worker is done with a connection, and return it."""
        with self._changed:
            return worker.connections.pop(connection_id, None)

    def connection(self, worker: Worker, connection_id: str) -> Connection | None:
        """Return a connection a worker has."""
        with self._changed:
            return worker.connections.get(connection_id)
