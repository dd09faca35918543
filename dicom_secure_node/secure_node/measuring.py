"""What a node's figures hold beside what was counted: looked up when somebody asks."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import dicom_secure_node
from dicom_secure_node.config import NodeConfig
from dicom_secure_node.node import measures
from dicom_secure_node.node.measures import BY_NAME
from dicom_secure_node.node.metrics import Metrics, Reading, Snapshot, check, merge
from dicom_secure_node.secure_node.expiry import Expiries
from dicom_secure_node.secure_node.shared import KeptTrail

_ANSWER_SECONDS = 2.0  # a worker has to report; what it said last counts after that


def metrics_of(config: NodeConfig, trail: KeptTrail, connections: Callable[[], int]) -> Metrics:
    """Return the figures of a node, those included that are looked up.

    Parameters
    ----------
    config : NodeConfig
    trail : KeptTrail
    connections : callable
        Returns how many connections are open.
    """
    metrics = Metrics()
    started = time.time()

    def of_node() -> Iterator[Reading]:
        yield measures.INFO, (dicom_secure_node.__version__,), 1
        yield measures.STARTED, (), started
        yield measures.CONNECTIONS, (), connections()

    metrics.source(of_node)
    metrics.source(lambda: _of_trail(trail))
    metrics.source(lambda: [(measures.SPOOL_LIMIT, (), config.audit.spool_limit)])
    metrics.source(lambda: _free("audit", config.audit.path))
    if "storage" in config.node.plugins:
        metrics.source(lambda: _free("archive", config.archive.path))
    metrics.source(Expiries(config).readings)
    return metrics


def _of_trail(trail: KeptTrail) -> Iterator[Reading]:
    since = trail.waiting_since()
    for one in trail.status():
        name = (one.name,)
        yield measures.WAITING, name, one.waiting
        yield measures.CONNECTED, name, int(one.connected)
        yield measures.SENT, name, one.sent
        yield measures.DROPPED, name, one.dropped + one.oversized
        if one.name in since:
            yield measures.WAITING_SINCE, name, since[one.name].timestamp()


def _free(folder: str, path: Path) -> Iterator[Reading]:
    facts = os.statvfs(path)
    yield measures.FREE, (folder,), facts.f_bavail * facts.f_frsize


class OfWorkers:
    """The figures worker processes report; safe to use from any thread.

    They report now and then, so that little is lost with one that is killed, and when asked.
    What a worker has counted still counts when it has gone; what was open with it does not.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._latest: dict[int, Snapshot] = {}
        self._answered: dict[int, int] = {}  # by worker, the last question
        self._past: Snapshot = {}
        self._questions = itertools.count(1)

    def report(self, worker: int, snapshot: Snapshot, question: int = 0) -> None:
        """Take the figures of a worker as they are now, and as an answer if they are one.

        Raises
        ------
        ValueError
            They are no figures. A worker holds what strangers sent: what it says of itself may
            not stand in the way of what others say, nor of putting in order what it leaves.
        """
        check(snapshot)
        with self._changed:
            self._latest[worker] = snapshot
            self._answered[worker] = max(question, self._answered.get(worker, 0))
            self._changed.notify_all()

    def ended(self, worker: int) -> None:
        """Note that a worker has gone."""
        with self._changed:
            gone = self._latest.pop(worker, {})
            counted = {name: one for name, one in gone.items() if BY_NAME[name].kind != "gauge"}
            self._past = merge([self._past, counted])
            self._changed.notify_all()

    def asked(self, ask: Callable[[int], Iterable[int]]) -> list[Snapshot]:
        """Ask all that serve, and return what there is, to be merged.

        Parameters
        ----------
        ask : callable
            Given the number of a question, asks it and returns which workers will answer.
        """
        question = next(self._questions)
        waiting = list(ask(question))
        with self._changed:
            self._changed.wait_for(
                lambda: all(
                    self._answered.get(one, 0) >= question or one not in self._latest
                    for one in waiting
                ),
                _ANSWER_SECONDS,
            )
            return [self._past, *self._latest.values()]
