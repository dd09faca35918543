"""What the verbs print: tables for people, JSON lines for machines, progress on a terminal."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any


def one_line(text: str) -> str:
    """Return `text` on one line, control characters escaped: it may hold a peer's words."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def table(rows: Iterable[Sequence[object]], headers: Sequence[str]) -> str:
    """Return the rows as aligned text columns below their headers, without a final line feed."""
    lines = [tuple(headers), *(tuple(one_line(str(cell)) for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def json_line(value: object) -> str:
    """Return a JSON value as one line of ASCII, without its line feed.

    What JSON does not know (paths, moments, UIDs) becomes its text.
    """
    return json.dumps(value, default=str)


def emit_json(value: object) -> None:
    """Print one JSON value as one line on stdout, at once."""
    sys.stdout.write(json_line(value) + "\n")
    sys.stdout.flush()


class Progress:
    """A progress bar on stderr, or nothing.

    Drawn when stderr is a terminal and the ``progress`` extra is installed; silent otherwise, so
    logs and pipes stay clean.

    Parameters
    ----------
    what : str
        A word or two before the bar.
    total : int, optional
        Number of steps, None when nobody knows.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = what
        self._total = total
        self._bar: Any = None  # rich.progress.Progress; rich is not a dependency
        self._task: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            try:
                progress = importlib.import_module("rich.progress")
                console = importlib.import_module("rich.console").Console(stderr=True)
            except ModuleNotFoundError:
                return self
            self._bar = progress.Progress(console=console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total)
        return self

    def advance(self, steps: int = 1) -> None:
        """Move the bar on."""
        if self._bar is not None:
            self._bar.advance(self._task, steps)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
