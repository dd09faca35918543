"""Fetch the keys of a token issuer by HTTP GET over TLS, within bounds (`pki.http`)."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path

from dicom_secure_node.errors import ConfigurationError, InvalidInput, ServiceUnavailable
from dicom_secure_node.identity.jwks import MAX_SET_BYTES
from dicom_secure_node.pki.http import Address, exchange, parse_url

SERVICE = "keys of the JWT issuer"


class Download:
    """Fetches a key set by HTTP GET, over TLS.

    One deadline holds for everything after the connection is made, whatever the other side
    trickles.

    Parameters
    ----------
    url : str
        ``https:``; ``http:`` on the loopback interface only.
    trust : sequence of Path
        CA certificates, PEM; the system's where none is given. Read at each download.
    seconds : float
        To connect, and again for the rest.

    Raises
    ------
    ConfigurationError
        The URL is none we would ask, or a CA file cannot be used.
    """

    def __init__(self, url: str, *, trust: Sequence[Path] = (), seconds: float = 5.0) -> None:
        self._address = _checked(url)
        self._trust = tuple(trust)
        self._seconds = seconds
        if self._address.encrypted:
            self._context()  # now, so that a wrong file shows before the node listens

    def __call__(self) -> bytes:
        """Return the body of the answer.

        Raises
        ------
        ServiceUnavailable
            Nobody there, no trust, no answer in time, or an answer other than 200.
        """
        try:
            trust = self._context() if self._address.encrypted else None
        except ConfigurationError as exc:
            raise ServiceUnavailable(SERVICE, str(exc)) from exc
        return exchange(
            self._address,
            SERVICE,
            accept="application/jwk-set+json, application/json",
            seconds=self._seconds,
            max_bytes=MAX_SET_BYTES,
            trust=trust,
        )

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks chain and host name
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self._trust:
            context.load_default_certs()
        for path in self._trust:
            try:
                context.load_verify_locations(path)
            except (OSError, ssl.SSLError) as exc:
                raise ConfigurationError("no CA certificates in PEM", str(path)) from exc
        return context


def _checked(url: str) -> Address:
    """Return where keys may be asked for: over TLS, or on this machine."""
    try:
        address = parse_url(url)
    except InvalidInput as exc:
        raise ConfigurationError(str(exc)) from exc
    if not (address.encrypted or _is_loopback(address.host)):
        raise ConfigurationError(
            f"found http://{address.host}, wanted https (http only on the loopback interface)"
        )
    return address


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
