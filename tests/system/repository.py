"""An audit record repository of our own, for what rsyslog would not do."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from pathlib import Path
from types import TracebackType

from tests.system.running import Record


class Collector:
    """Takes octet-counted frames over TLS (RFC 5425) while the ``with`` block runs.

    Parameters
    ----------
    base : Path
        Credential, ``base.crt`` and ``base.key``.
    ca : Path
        Who may send.
    each : int
        Messages taken from one connection before it is closed in good order; 0 never closes.
    idle : float
        Seconds without a message after which a connection is closed in good order.
    """

    def __init__(self, base: Path, ca: Path, *, each: int = 0, idle: float = 60) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(base.with_suffix(".crt"), base.with_suffix(".key"))
        self._each = each
        self._idle = idle
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self.messages: list[bytes] = []
        self.last = time.monotonic()
        self._open: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # shutdown, unlike close, ends a call that waits in another thread.
        for sock in (self._listener, self._open):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    @property
    def records(self) -> list[Record]:
        """What has arrived."""
        marked = [message.partition(b"\xef\xbb\xbf")[2] for message in list(self.messages)]
        return [Record(xml.decode()) for xml in marked]

    def quiet(self, seconds: float) -> bool:
        """Tell whether nothing has come for that long."""
        return time.monotonic() - self.last > seconds

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with plain, contextlib.suppress(OSError, ValueError, EOFError):
                plain.settimeout(20)
                with self._context.wrap_socket(plain, server_side=True) as sock:
                    self._open = sock
                    self._take(sock)
            self._open = None

    def _take(self, sock: ssl.SSLSocket) -> None:
        sock.settimeout(self._idle)
        taken = 0
        with sock.makefile("rb") as file, contextlib.suppress(TimeoutError):
            while not self._each or taken < self._each:
                size = b""
                while not size.endswith(b" "):
                    byte = file.read(1)
                    if not byte:
                        return
                    size += byte
                message = file.read(int(size))
                if len(message) < int(size):
                    return
                self.messages.append(message)
                taken += 1
                self.last = time.monotonic()
        with contextlib.suppress(OSError):
            sock.unwrap()
