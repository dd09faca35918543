"""A TLS listener over one of our contexts, for tests to call from outside."""

from __future__ import annotations

import queue
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from dicom_secure_node.errors import HandshakeRefused
from dicom_secure_node.tls.context import ServerContext
from dicom_secure_node.tls.facts import TLSFacts
from dicom_secure_node.tls.socket import TLSSocket
from tests.certs import Leaf
from tests.parts import Part, free_port, run

WAIT = 30.0  # seconds; how long a test waits for what has to happen


class Listener:
    """Accept on loopback, shake hands in a thread of each connection, then echo.

    Parameters
    ----------
    context : ServerContext
        Used for every connection; may be replaced between two.
    seconds : float
        Given to each handshake.
    """

    def __init__(self, context: ServerContext, seconds: float = WAIT) -> None:
        self.context = context
        self._seconds = seconds
        self._outcomes: queue.Queue[TLSFacts | Exception] = queue.Queue()
        self._endings: queue.Queue[OSError | None] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def outcome(self) -> TLSFacts | Exception:
        """Return how the next handshake ended, in the order they ended."""
        return self._outcomes.get(timeout=WAIT)

    def facts(self) -> TLSFacts:
        """Return the facts of the next handshake, which has to succeed."""
        outcome = self.outcome()
        assert isinstance(outcome, TLSFacts), outcome
        return outcome

    def refusal(self) -> HandshakeRefused:
        """Return why the next handshake failed, which it has to."""
        outcome = self.outcome()
        assert isinstance(outcome, HandshakeRefused), outcome
        return outcome

    def ending(self) -> OSError | None:
        """Return what ended the next connection that was established, None for a close."""
        return self._endings.get(timeout=WAIT)

    def connect(self) -> socket.socket:
        """Return a plain connection to it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=WAIT)

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(plain,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        connection = self.context.wrap_socket(plain, server_side=True)
        try:
            self._outcomes.put(connection.handshake(self._seconds))
            self._echo(connection)
        except Exception as exc:
            self._outcomes.put(exc)
        finally:
            connection.close()

    def _echo(self, connection: TLSSocket) -> None:
        try:
            while received := connection.recv(65536):
                connection.sendall(received)
        except OSError as exc:
            self._endings.put(exc)
        else:
            self._endings.put(None)

    def __enter__(self) -> Listener:
        self._threads.append(threading.Thread(target=self._accept, daemon=True))
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(WAIT)


def s_client(
    port: int, *options: str | Path, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Return how openssl s_client fared; without more options it ends by itself at once."""
    return run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options], stdin=stdin)


@contextmanager
def openssl_server(leaf: Leaf, log: Path, *options: str | Path) -> Iterator[int]:
    """Yield the port of an openssl s_server presenting `leaf`."""
    port = free_port()
    argv: list[str | Path] = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}"]
    argv += ["-cert", leaf.crt, "-cert_chain", leaf.crt, "-key", leaf.key]
    if "-cipher" not in options:
        argv += ["-cipher", "DEFAULT:@SECLEVEL=0"]
    argv += ["-www"]  # or it would end with its standard input
    with Part([*argv, *options], log=log, port=port):
        yield port
