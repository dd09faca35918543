"""Something built from files, built again when they change.

Certificates are renewed and revocation lists arrive while the node runs. Whoever needs the
context asks for `Reloading.current` at each connection; established connections keep theirs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

# What tells two versions of a file apart: time of change (ns), size and inode; None if absent.
_Stamp = tuple[tuple[int, int, int] | None, ...]


class Reloading(Generic[T]):
    """The latest good state of something built from files.

    Whoever asks first builds the first one, whose failure is raised: a node does not start
    without. Later failures keep the last good one and are reported once each. Replace files
    by renaming, or a half-written one may be read; the next look mends that.

    Parameters
    ----------
    build : callable
        Reads the files and returns the thing; may raise.
    paths : sequence of Path
        The files it reads.
    on_problem : callable
        Called with the exception of a failed rebuild, once until another failure or a success.
    on_reload : callable, optional
        Called with the new thing after each successful rebuild.
    """

    def __init__(
        self,
        build: Callable[[], T],
        paths: Sequence[Path],
        on_problem: Callable[[Exception], None],
        on_reload: Callable[[T], None] | None = None,
    ) -> None:
        self._build = build
        self._paths = tuple(paths)
        self._on_problem = on_problem
        self._on_reload = on_reload
        self._lock = threading.Lock()
        self._told = ""
        # The stamp is taken before the files are read: a change meanwhile shows next time.
        self._stamp = self._look()
        self._current = build()

    @property
    def current(self) -> T:
        """Return the thing as its files have it now, or as they last had it in good order."""
        if self._look() == self._stamp:
            return self._current
        # One thread rebuilds; the others go on with what there is.
        if self._lock.acquire(blocking=False):
            try:
                self._rebuild()
            finally:
                self._lock.release()
        return self._current

    def _rebuild(self) -> None:
        stamp = self._look()
        if stamp == self._stamp:  # another thread was faster
            return
        try:
            current = self._build()
        except Exception as exc:
            self._stamp = stamp  # not tried again until a file changes
            self._report(exc)
            return
        self._stamp, self._current, self._told = stamp, current, ""
        logger.info("read again after a change: %s", ", ".join(p.name for p in self._paths))
        if self._on_reload:
            self._on_reload(current)

    def _report(self, exc: Exception) -> None:
        words = f"{type(exc).__name__}: {exc}"
        if words == self._told:
            return
        self._told = words
        logger.error("changed files cannot be used, the last good ones stay: %s", words)
        self._on_problem(exc)

    def _look(self) -> _Stamp:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
