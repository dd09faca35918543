"""Temporary names of one process, and the traces of those that did not end well."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from dicom_secure_node.durable.files import fsync_folder

_LOCK = ".lock"
_SESSION = ".session"
_PART = ".part"


class Session:
    """One process's use of the folder for incoming files.

    A session holds a lock on a file of its own as long as its process lives: process ids say
    nothing (in a container they are the same after each start). Whoever opens a session
    removes the temporary files of those whose lock is free.

    Parameters
    ----------
    folder : Path
        For temporary files; exists.

    Attributes
    ----------
    found_unclean : bool
        An earlier session ended without `close`.

    Raises
    ------
    OSError
        The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._path = folder / f"{self._name}{_SESSION}"
        with self._guarded():
            self.found_unclean = self._sweep()
            self._descriptor = _open(self._path)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        fsync_folder(folder)  # so that a power cut is noticed, too

    def sweep(self) -> bool:
        """Remove what processes left that have died meanwhile; tell whether there was one."""
        with self._guarded():
            return self._sweep()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keep others out: one at a time, so that a new session is locked when it is seen."""
        guard = _open(self._folder / _LOCK)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
            yield
        finally:
            os.close(guard)

    def temporary(self) -> Path:
        """Return a name nobody has used; safe to call from any thread, and after a fork."""
        return self._folder / f"{self._name}-{os.getpid()}-{next(self._numbers)}{_PART}"

    def close(self, *, clean: bool = True) -> None:
        """End the session; unless `clean` the next one finds it like one that was killed."""
        if clean:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _sweep(self) -> bool:
        """Remove what dead sessions left; tell whether there was one."""
        living = set()
        dead = []
        for path in self._folder.glob(f"*{_SESSION}"):
            if _is_locked(path):
                living.add(path.name.removesuffix(_SESSION))
            else:
                dead.append(path)
        for path in self._folder.glob(f"*{_PART}"):
            if path.name.split("-")[0] not in living:
                path.unlink(missing_ok=True)
        # Forgotten only once its consequences are dealt with: see `forget`.
        self._dead = dead
        return bool(dead)

    def forget(self) -> None:
        """Forget the sessions that ended badly: the index agrees with the files again."""
        for path in self._dead:
            path.unlink(missing_ok=True)
        self._dead = []


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_locked(path: Path) -> bool:
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
