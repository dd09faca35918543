"""A C-STORE-RQ whose data set lies in a file, as the bytes that go out.

The data set goes from the file into its P-DATA-TF PDUs: a run of PDUs is laid out in one buffer,
used again and again, and the kernel fills the gaps between their headers (``preadv``). Nothing
is encoded, copied or kept, so memory is the same for every size.

Each PDU holds one presentation data value: some products read no second one. The command and the
first PDUs of the data set leave together all the same.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from dicom_secure_node.node.store_codec import (
    LAST,
    LONGEST_COMMAND,
    PDU_HEADER,
    PDV_HEADER,
    command_pdu,
    data_pdu_header,
)

_RUN = 262_144  # bytes of PDUs that leave at once
_MOST_PDUS = 256  # in a run; the kernel fills at most 1024 pieces at a time
_HEADERS = PDU_HEADER + PDV_HEADER


class PDURun:
    """A buffer with room for a command PDU and, behind it, a run of data PDUs.

    Parameters
    ----------
    maximum : int
        Bytes of one PDU as the peer counts them (PS3.8 D.1): without its header.

    Attributes
    ----------
    fragment : int
        Bytes of the data set in one full PDU.
    """

    def __init__(self, maximum: int) -> None:
        self.fragment = maximum - PDV_HEADER
        self._whole = self.fragment + _HEADERS
        count = max(1, min(_RUN // self._whole, _MOST_PDUS))
        self._start = LONGEST_COMMAND + _HEADERS
        self._view = memoryview(bytearray(self._start + count * self._whole))
        self._gaps = [
            self._view[at + _HEADERS : at + self._whole]
            for at in range(self._start, len(self._view), self._whole)
        ]

    def takes(self, command: bytes) -> bool:
        """Return whether `command` fits into a PDU of its own."""
        return len(command) <= min(self.fragment, LONGEST_COMMAND)

    def fill(
        self, command: bytes, context_id: int, descriptor: int, position: int, left: int
    ) -> tuple[memoryview, int]:
        """Return the next PDUs and how many bytes of the data set are in them.

        Parameters
        ----------
        command : bytes
            To go before them; empty where it has gone already.
        context_id : int
            Of the presentation context.
        descriptor : int
            Of the file.
        position, left : int
            What is to be sent of it. Where nothing is, the PDU is empty.

        Raises
        ------
        OSError
            The file cannot be read, or has become shorter.
        """
        start = self._start
        if command:
            pdu = command_pdu(context_id, command)
            start -= len(pdu)
            self._view[start : self._start] = pdu
        size = min(left, len(self._gaps) * self.fragment)
        full, rest = divmod(size, self.fragment)
        gaps = self._gaps[:full]
        if rest or not size:
            gaps.append(self._gaps[full][:rest])
        _read(descriptor, gaps, position)
        end = self._start
        for number, gap in enumerate(gaps, 1):
            control = LAST if number == len(gaps) and size == left else 0
            self._view[end : end + _HEADERS] = data_pdu_header(context_id, control, len(gap))
            end += _HEADERS + len(gap)
        return self._view[start:end], size


def _read(descriptor: int, gaps: Sequence[memoryview], position: int) -> None:
    """Fill the gaps from `position` of a file on."""
    unfilled = deque(gap for gap in gaps if gap)
    while unfilled:
        count = os.preadv(descriptor, unfilled, position)
        if not count:
            raise OSError(None, "the file became shorter while it was sent")
        position += count
        while unfilled and count >= len(unfilled[0]):
            count -= len(unfilled.popleft())
        if count:  # a file system may give less than it was asked for
            unfilled[0] = unfilled[0][count:]


class OutgoingStore:
    """One C-STORE-RQ on its way; the caller makes it, the upper layer's thread sends it.

    Parameters
    ----------
    command : bytes
        The command set.
    context_id : int
        Of the presentation context.
    path : Path
        The file.
    offset : int
        Where the data set begins in it, in bytes.

    Attributes
    ----------
    over : Event
        Nothing more will be sent.
    sent_at : float or None
        `time.monotonic` value of when all of it was sent.
    error : Exception or None
        Why the file could not be read to its end.
    begun : bool
        Something of it was sent.

    Raises
    ------
    OSError
        The file cannot be read.
    """

    def __init__(self, command: bytes, context_id: int, path: Path, offset: int) -> None:
        self.over = threading.Event()
        self.sent_at: float | None = None
        self.error: Exception | None = None
        self.begun = False
        self._command = command
        self._context_id = context_id
        self._position = offset
        self._reading = threading.Lock()  # or the descriptor might be another file's by now
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._left = max(0, os.fstat(self._descriptor).st_size - offset)

    def next(self, run: PDURun) -> memoryview:
        """Lay out the next PDUs in `run`.

        Raises
        ------
        OSError
            The file cannot be read, or has become shorter.
        """
        with self._reading:
            if self._descriptor < 0:
                raise OSError(None, "nobody waits for it any more")
            pdus, size = run.fill(
                b"" if self.begun else self._command,
                self._context_id,
                self._descriptor,
                self._position,
                self._left,
            )
        self.begun = True
        self._position += size
        self._left -= size
        return pdus

    @property
    def at_end(self) -> bool:
        """Whether `next` has laid out the last PDU."""
        return self.begun and not self._left

    def __enter__(self) -> OutgoingStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        with self._reading:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
