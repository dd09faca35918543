"""The same work on many files, on every core, answered in the order of the files.

Each worker is a process, so that a file that kills one costs that file and no other; the pool of
the standard library ends the whole batch then. Workers are forked: nothing is imported or loaded
again, and what `begin` closes over is there without being pickled. Only answers are.

What happens to an error:

===================================  ================================================
`begin` raises                       the batch ends with it, nothing was done
work raises one of our own errors    the batch ends with it: no other file would fare
                                     better (a service is away, an option is wrong)
work raises anything else            the answer for this file is `lost`
the process ends                     the same, and another process takes its place
===================================  ================================================
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar, cast

from dicom_secure_node.commands import explain
from dicom_secure_node.errors import SecureNodeError, ServiceUnavailable

Answer = TypeVar("Answer")
Work = Callable[[Path], Answer]

# A slow file holds up the answers of those behind it, not of all the rest.
_AHEAD = 4096


def cores() -> int:
    """Return how many processes can run at once here."""
    return len(os.sched_getaffinity(0))


@dataclass
class _Worker:
    """A process, our end of its pipe, and the place of the file it is at."""

    process: BaseProcess
    pipe: Connection
    place: int | None = None
    ready: bool = False


@dataclass
class Workers(Generic[Answer]):
    """Processes that work through `paths`; to be used in a ``with`` statement.

    Attributes
    ----------
    paths : sequence of Path
    begin : callable
        Called once in each process; returns what turns a path into an answer.
    lost : callable
        Makes the answer for a file nothing came back for, of its path and the reason.
    processes : int
        None is started for fewer than two files or processes: then all is done in this one.
    """

    paths: Sequence[Path]
    begin: Callable[[], Work[Answer]]
    lost: Callable[[Path, str], Answer]
    processes: int = field(default_factory=cores)
    _workers: list[_Worker] = field(default_factory=list)

    def __enter__(self) -> Workers[Answer]:
        # Now, before anybody shows progress in a thread: a fork copies only the thread that forks.
        if self.processes > 0 and len(self.paths) > 1:
            for _ in range(min(self.processes, len(self.paths))):
                self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.process.terminate()
            # A signal that comes just before a read does not end it; the end of the pipe does.
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join()

    def answers(self) -> Iterator[Answer]:
        """Yield the answer for each path, in order.

        Raises
        ------
        SecureNodeError, OSError
            See the table of the module.
        """
        if not self._workers:
            work = self.begin()
            for path in self.paths:
                yield self._tried(work, path)
            return
        waiting = deque(range(len(self.paths)))
        done: dict[int, Answer] = {}
        for head in range(len(self.paths)):
            while head not in done:
                self._hand_out(waiting, head)
                self._collect(done)
            yield done.pop(head)

    def _hand_out(self, waiting: deque[int], head: int) -> None:
        for worker in self._workers:
            idle = worker.ready and worker.place is None
            if idle and waiting and waiting[0] < head + _AHEAD:
                worker.place = waiting.popleft()
                with contextlib.suppress(BrokenPipeError):  # its end is seen when it is asked
                    worker.pipe.send(worker.place)

    def _collect(self, done: dict[int, Answer]) -> None:
        """Wait until at least one worker has said something, or has ended."""
        said = wait([worker.pipe for worker in self._workers])
        for worker in [worker for worker in self._workers if worker.pipe in said]:
            try:
                answer, error = worker.pipe.recv()
            except (EOFError, ConnectionResetError):
                self._replace(worker, done)
                continue
            if error is not None:
                raise error
            if worker.place is not None:
                done[worker.place] = answer
            worker.place, worker.ready = None, True

    def _replace(self, worker: _Worker, done: dict[int, Answer]) -> None:
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        how = _ending(worker.process.exitcode or 0)
        if worker.place is None:
            raise ServiceUnavailable("a worker process", f"it ended {how} before it did anything")
        done[worker.place] = self.lost(
            self.paths[worker.place], f"the process that looked at it ended {how}"
        )
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        not_theirs = [ours, *(worker.pipe for worker in self._workers)]
        process = context.Process(target=self._serve, args=(theirs, not_theirs), daemon=True)
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours))

    def _serve(self, pipe: Connection, not_ours: Sequence[Connection]) -> None:
        """Work until there is no more; runs in the worker."""
        # Ctrl-C goes to every process of the terminal. Only the first one has anything to say.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # files that are not whole are removed
        for other in not_ours:
            other.close()  # or no worker would see that the first process has gone
        with contextlib.suppress(EOFError, OSError):
            try:
                work = self.begin()
                pipe.send((None, None))
                while True:
                    path = self.paths[cast(int, pipe.recv())]
                    pipe.send((self._tried(work, path), None))
            except EOFError:
                return
            except (SecureNodeError, OSError) as error:
                pipe.send((None, error))

    def _tried(self, work: Work[Answer], path: Path) -> Answer:
        try:
            return work(path)
        except SecureNodeError:
            raise
        except Exception as error:  # a fault of ours with one file is no reason to drop the others
            return self.lost(path, explain(error))


def _ending(code: int) -> str:
    return f"by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with {code}"
