"""HTTPS: the sockets, what TLS may be, and how long a peer may take for a request.

Python's ``ssl`` and not `tls`: the server under the pages takes no other context. It is a
browser's connection and no DICOM one, so no profile of PS3.15 Annex B binds it; what is set here
is nevertheless within RFC 9325.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable

_REQUEST_SECONDS = 15.0  # until a request's header is there, the first one's or the next one's
_KEEP_ALIVE_SECONDS = 5
_STOP_SECONDS = 3
_CONNECTIONS = 100
_HEADER_LIMIT = 16 * 1024  # octets
_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"


def tls_context(credentials: Sequence[Path]) -> ssl.SSLContext:
    """Return the TLS context of certificates and keys, named without their endings.

    Raises
    ------
    ConfigurationError
        A file cannot be used, or a key has a passphrase.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    for base in credentials:
        certificate, key = (base.with_name(base.name + end) for end in (".crt", ".key"))
        try:
            context.load_cert_chain(certificate, key, _no_passphrase)
        except (OSError, ssl.SSLError, ValueError) as exc:
            raise ConfigurationError(f"cannot be used for HTTPS: {exc}", str(base)) from exc
    return context


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase, and there is nobody to ask")


def bound(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises
    ------
    ServiceUnavailable
        The port is taken, or the address is not ours.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
    except OSError as exc:
        raise ServiceUnavailable(f"listener {host}:{port}", exc.strerror or str(exc)) from exc
    return listener


class _Hurrying(H11Protocol):
    """Hangs up on who begins a request and does not come to its end."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()  # the beginning of the next request may be here already

    def _look(self) -> None:
        if self._idle:
            self._wait()
        else:
            self._stop_waiting()

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(_REQUEST_SECONDS, self._hang_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _hang_up(self) -> None:
        if self._idle:
            self.transport.abort()


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT; these then reach the handlers there were before.

    Parameters
    ----------
    pages : ASGI application
    context : ssl.SSLContext
    ready : callable
        Called once requests are answered; returns whether to go on.
    """

    def __init__(self, pages: ASGIApp, context: ssl.SSLContext, ready: Callable[[], bool]) -> None:
        def given(*_: Any) -> ssl.SSLContext:
            return context

        config = uvicorn.Config(
            pages,
            ssl_context_factory=given,
            http=_Hurrying,
            ws="none",
            loop="asyncio",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,  # query strings hold names of patients
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_STOP_SECONDS,
            h11_max_incomplete_event_size=_HEADER_LIMIT,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets=sockets)
        if self.started and not self._ready():
            self.should_exit = True
