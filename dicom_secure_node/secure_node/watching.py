"""How people and monitoring systems look at a running node; `serve` opens it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicom_secure_node import config
from dicom_secure_node.errors import MissingExtra, ServiceUnavailable
from dicom_secure_node.secure_node.status_socket import StatusSocket

if TYPE_CHECKING:
    from dicom_secure_node.secure_node.prometheus import MetricsServer

logger = logging.getLogger(__name__)


class Watch:
    """The status socket in a node's home, and its page of metrics where one is configured.

    Parameters
    ----------
    status : callable
        `SecureNode.status`, or what stands for it.
    home : Path
        Where the socket goes.
    table : config.Metrics
    """

    def __init__(
        self, status: Callable[[], dict[str, Any]], home: Path, table: config.Metrics
    ) -> None:
        self._status = status
        self._home = home
        self._table = table
        self._open = contextlib.ExitStack()

    def start(self) -> None:
        """Open both; without a socket the node runs all the same.

        Raises
        ------
        ServiceUnavailable
            The port of the page is in use.
        MissingExtra
            prometheus_client is not installed.
        """
        if self._table.port:
            page = server_class()(
                self._table.host, self._table.port, lambda: self._status()["metrics"]
            )
            self._open.callback(page.close)
            logger.info("metrics at http://%s:%d/metrics", *page.server_address[:2])
        try:
            self._open.callback(StatusSocket(self._home, self._status).close)
        except ServiceUnavailable as exc:
            logger.warning("the status verb will not find this node: %s", exc)

    def stop(self) -> None:
        """Close both."""
        self._open.close()


def server_class() -> type[MetricsServer]:
    """Return what serves the page, or raise `MissingExtra`."""
    try:
        from dicom_secure_node.secure_node.prometheus import MetricsServer
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] == "prometheus_client":
            raise MissingExtra("[metrics] port", "metrics") from exc
        raise
    return MetricsServer
