"""A running node tells how it is to whoever may open a socket file in its home.

One connection at a time gets one JSON object and the end of the stream. A reader that does not
read costs a second, and nobody but the next reader waits for it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dicom_secure_node.errors import ServiceUnavailable

logger = logging.getLogger(__name__)

NAME = "status.sock"

_PATH_LIMIT = 107  # bytes of an address, sun_path less its NUL (unix(7))
_SEND_SECONDS = 1.0
_ASK_SECONDS = 10
_ANSWER_LIMIT = 16 << 20  # bytes


class StatusSocket:
    """Listens in a folder until closed; only the user the node runs as may connect.

    Parameters
    ----------
    folder : Path
        The home of the node.
    answer : callable
        Returns what to tell, as JSON can hold it.

    Raises
    ------
    ServiceUnavailable
        The folder cannot be used, or another node answers there.
    """

    def __init__(self, folder: Path, answer: Callable[[], object]) -> None:
        self._folder = folder
        self._answer = answer
        self._closing = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._inode = self._listen()
        except OSError as exc:
            self._socket.close()
            raise ServiceUnavailable(str(folder / NAME), exc.strerror or str(exc)) from exc
        except BaseException:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._serve, name="status socket", daemon=True)
        self._thread.start()

    def _listen(self) -> int:
        """Put our socket in the place of one that a killed node has left; return its inode."""
        try:
            _connected(self._folder).close()
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        else:
            raise ServiceUnavailable(str(self._folder / NAME), "another node answers there")
        # The file gets the mode of the socket: nobody else can connect, not for a moment.
        os.fchmod(self._socket.fileno(), 0o600)
        ours = self._folder / f".{NAME}-{os.getpid()}"
        ours.unlink(missing_ok=True)
        try:
            with _address(ours) as address:
                self._socket.bind(address)
            self._socket.listen(8)
            inode = ours.lstat().st_ino
            ours.replace(self._folder / NAME)
        finally:
            ours.unlink(missing_ok=True)
        return inode

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                peer, _ = self._socket.accept()
            except OSError:
                if not self._closing.wait(0.05):  # out of descriptors, perhaps
                    continue
                return
            with peer:
                if not self._closing.is_set():
                    self._tell(peer)

    def _tell(self, peer: socket.socket) -> None:
        try:
            text = json.dumps(self._answer()) + "\n"
            peer.settimeout(_SEND_SECONDS)  # for the whole of it
            peer.sendall(text.encode())
        except OSError:
            logger.debug("a reader of the status did not read")
        except Exception as exc:
            logger.error("the status cannot be told: %s", type(exc).__name__)

    def close(self) -> None:
        """Stop listening, and remove the file if it is still ours."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # ends accept
        self._thread.join()
        self._socket.close()
        path = self._folder / NAME
        with contextlib.suppress(OSError):
            if path.lstat().st_ino == self._inode:
                path.unlink()


def ask(folder: Path) -> Any:
    """Return what the node whose home is `folder` tells of itself.

    Raises
    ------
    ServiceUnavailable
        No node runs there, or it does not answer.
    """
    where = str(folder / NAME)
    try:
        with _connected(folder) as sock:
            return json.loads(_all_of(sock))
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as exc:
        raise ServiceUnavailable(
            where,
            f"no node runs here; start one with: dicom-secure-node serve --home {folder}",
        ) from exc
    except OSError as exc:
        raise ServiceUnavailable(where, exc.strerror or str(exc)) from exc
    except ValueError as exc:
        raise ServiceUnavailable(where, "the node broke off its answer, see its log") from exc


def _all_of(sock: socket.socket) -> bytes:
    answer = bytearray()
    while piece := sock.recv(1 << 16):
        answer += piece
        if len(answer) > _ANSWER_LIMIT:
            raise ValueError("too long for a status")
    return bytes(answer)


def _connected(folder: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Where others wait, a socket with a time-out of Python's own would not wait at all.
        patience = struct.pack("ll", _ASK_SECONDS, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        with _address(folder / NAME) as address:
            sock.connect(address)
        sock.settimeout(_ASK_SECONDS)
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """Give an address for a path: itself, or by way of an open folder where it is too long."""
    if len(os.fsencode(path)) <= _PATH_LIMIT:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
