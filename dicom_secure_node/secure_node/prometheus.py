"""The figures of a node in Prometheus's text format, over HTTP on a loopback port.

Needs the extra ``metrics``. The page asks nobody who he is, so it is for this machine: everything
but ``GET /metrics`` is refused, a request has two seconds to arrive and its answer two to leave,
and four are served at a time.
"""

from __future__ import annotations

import io
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from dicom_secure_node.errors import ServiceUnavailable
from dicom_secure_node.node.measures import FAMILIES, Family
from dicom_secure_node.node.metrics import Sample, Snapshot

logger = logging.getLogger(__name__)

PATH = "/metrics"

_SECONDS = 2.0
_AT_A_TIME = 4
_HEAD_LIMIT = 8192  # bytes of request line and headers


class SnapshotCollector(Collector):
    """A snapshot as prometheus_client wants its metrics."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield every metric that has a value."""
        for family in FAMILIES:
            samples = self._snapshot.get(family.name)
            if samples:
                yield _metric(family, samples)


def _metric(family: Family, samples: list[Sample]) -> Metric:
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        for sample in samples:
            bounds = [*map(floatToGoString, sample["bounds"]), "+Inf"]
            counts = accumulate(sample["buckets"])
            buckets = list(zip(bounds, map(float, counts), strict=True))
            histogram.add_metric(list(sample["labels"].values()), buckets, sample["sum"])
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for sample in samples:
        metric.add_metric(list(sample["labels"].values()), sample["value"])
    return metric


class _Page(BaseHTTPRequestHandler):
    """One request, which has to arrive within its time."""

    server: MetricsServer
    server_version = "dicom-secure-node"
    sys_version = ""
    timeout = _SECONDS  # of one send

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(io.BytesIO(self._head()))

    def _head(self) -> bytes:
        """Return request line and headers, or nothing."""
        head, deadline = b"", time.monotonic() + _SECONDS
        while b"\r\n\r\n" not in head:
            left = deadline - time.monotonic()
            if left <= 0 or len(head) > _HEAD_LIMIT:
                return b""
            self.connection.settimeout(left)
            try:
                piece = self.connection.recv(4096)
            except OSError:
                return b""
            if not piece:
                return b""
            head += piece
        self.connection.settimeout(_SECONDS)
        return head

    def do_GET(self) -> None:
        """Answer with the figures."""
        if self.path.partition("?")[0] != PATH:
            self.send_error(404)
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        text = encode(SnapshotCollector(self.server.snapshot()))
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: every few seconds somebody asks."""


class MetricsServer(socketserver.ThreadingTCPServer):
    """Serves the page until closed.

    Parameters
    ----------
    host, port : str, int
        A loopback address.
    snapshot : callable
        Returns the figures as of now.

    Raises
    ------
    ServiceUnavailable
        The port is in use.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, snapshot: Callable[[], Snapshot]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.snapshot = snapshot
        self._free = threading.BoundedSemaphore(_AT_A_TIME)
        try:
            super().__init__((host, port), _Page)
        except OSError as exc:
            raise ServiceUnavailable(f"metrics {host}:{port}", exc.strerror or str(exc)) from exc
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True
        ).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve in a thread of its own, or hang up when there are enough."""
        if self._free.acquire(blocking=False):
            try:
                super().process_request(request, client_address)
            except BaseException:  # no room for a thread
                self._free.release()
                raise
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, *_: Any) -> None:
        """Say it in the log; a reader that has gone is no error."""
        logger.debug("a request for the metrics was not answered", exc_info=True)

    def close(self) -> None:
        """Stop serving."""
        self.shutdown()
        self.server_close()
