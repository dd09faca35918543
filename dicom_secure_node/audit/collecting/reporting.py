"""What the repository counts, and what it says in the program's log without being flooded."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, fields

from dicom_secure_node.audit.limiter import AlertLimiter
from dicom_secure_node.audit.text import cut

logger = logging.getLogger("dicom_secure_node.audit.collecting")


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers since the start.

    Attributes
    ----------
    stored : int
        Messages on the disk.
    oversized : int
        Refused because they were longer than the limit.
    broken : int
        Connections closed because nobody knew where the next message begins.
    unfinished : int
        Messages that broke off with their connection.
    lost : int
        Datagrams there was no room for, those the system dropped included.
    refused : int
        Connections refused: limits, handshakes.
    given_up : int
        Messages received and not kept, because the disk took nothing until the end.
    connections : int
        Open now.
    """

    stored: int = 0
    oversized: int = 0
    broken: int = 0
    unfinished: int = 0
    lost: int = 0
    refused: int = 0
    given_up: int = 0
    connections: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))


class Reporter:
    """Counts and warnings; shared by all threads.

    Of warnings of one kind and text about one address the first is logged, the others are
    counted and logged as a sum every minute (`flush`).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {field.name: 0 for field in fields(Counts)}
        self._limiter = AlertLimiter()

    def add(self, name: str, number: int = 1) -> None:
        """Add to one of the `Counts`."""
        with self._lock:
            self._counts[name] += number

    @property
    def counts(self) -> Counts:
        """Return the numbers as they are."""
        with self._lock:
            return Counts(**self._counts)

    def warn(self, kind: str, address: str, text: str, more: str = "") -> None:
        """Log a warning about a peer, unless it was just logged.

        Parameters
        ----------
        kind : str
            The same for what is counted together.
        text : str
            May hold words of the peer.
        more : str
            What differs each time, such as a port.
        """
        text = cut(text)
        if self._limiter.admit((kind, address, text)):
            logger.warning("%s%s: %s", address, more, text)

    def flush(self) -> None:
        """Log the sums of what was held back."""
        for one in self._limiter.due():
            _, address, text = one.key
            logger.warning("%s: %s (%d more since %s)", address, text, one.count, one.since)
