"""``[metrics]``: figures for a monitoring system."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from dicom_secure_node.errors import ConfigurationError


@dataclass(frozen=True)
class Metrics:
    """``[metrics]``: where Prometheus finds the figures of the node.

    Attributes
    ----------
    port : int
        Of the page ``/metrics``; 0: there is none.
    host : str
        A loopback address: the page asks nobody who he is.
    """

    port: int = 0
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ConfigurationError(f"found {self.port}, wanted 0 to 65,535", "port")
        try:
            loopback = ip_address(self.host).is_loopback
        except ValueError:
            loopback = False
        if not loopback:
            raise ConfigurationError(
                f"found {self.host!r}, wanted a loopback address such as 127.0.0.1: put a proxy "
                "that asks for credentials in front for readers elsewhere",
                "host",
            )
