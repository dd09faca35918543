"""What may stand between a node and its repository, and end connections by half."""

from __future__ import annotations

import contextlib
import socket
import threading

_PIECE = 64 * 1024
_RESET = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 seconds


class Relay:
    """Passes octets on between whoever connects to `port` and a port of this machine."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}  # sender's side: repository's
        threading.Thread(target=self._accept, daemon=True).start()

    def half_close(self) -> int:
        """Say to every sender that no more will come, and lose what it sends from now on.

        The repository sees its connections break. Returns how many there were.
        """
        with self._lock:
            pairs = list(self._pairs.items())
        for sender, repository in pairs:
            with contextlib.suppress(OSError):
                repository.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                sender.shutdown(socket.SHUT_WR)
        return len(pairs)

    def close(self) -> None:
        """Accept no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sender, _ = self._listener.accept()
            except OSError:
                return
            try:
                repository = socket.create_connection(("127.0.0.1", self._target), 10)
            except OSError:
                sender.close()  # as a port where nobody listens
                continue
            repository.settimeout(None)
            with self._lock:
                self._pairs[sender] = repository
            threading.Thread(target=self._there, args=(sender, repository), daemon=True).start()
            threading.Thread(target=self._back, args=(sender, repository), daemon=True).start()

    def _there(self, sender: socket.socket, repository: socket.socket) -> None:
        lost = False
        with contextlib.suppress(OSError):
            while piece := sender.recv(_PIECE):
                if not lost:
                    try:
                        repository.sendall(piece)
                    except OSError:
                        lost = True
        with contextlib.suppress(OSError):
            repository.shutdown(socket.SHUT_WR)
        with self._lock:
            self._pairs.pop(sender, None)
        sender.close()

    def _back(self, sender: socket.socket, repository: socket.socket) -> None:
        try:
            while piece := repository.recv(_PIECE):
                sender.sendall(piece)
        except ConnectionResetError:
            with contextlib.suppress(OSError):  # the reset is passed on as well
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                sender.shutdown(socket.SHUT_RD)
        except OSError:
            pass
        with contextlib.suppress(OSError):
            sender.shutdown(socket.SHUT_WR)
        repository.close()
