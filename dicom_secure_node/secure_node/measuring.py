"""What a node's figures hold beside what was counted: looked up when somebody asks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dicom_secure_node
from dicom_secure_node.audit.trail import AuditTrail
from dicom_secure_node.config import NodeConfig
from dicom_secure_node.node import measures
from dicom_secure_node.node.metrics import Metrics, Reading
from dicom_secure_node.secure_node.expiry import Expiries


def metrics_of(config: NodeConfig, trail: AuditTrail, connections: Callable[[], int]) -> Metrics:
    """Return the figures of a node, those included that are looked up.

    Parameters
    ----------
    config : NodeConfig
    trail : AuditTrail
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


def _of_trail(trail: AuditTrail) -> Iterator[Reading]:
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
