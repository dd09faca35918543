"""A program that stores made-up instances and says what it was told: for tests that kill it.

``python storing.py FOLDER FIRST COUNT [SIZE]``: stores instances FIRST, FIRST+1, ... with SIZE
bytes of pixels each and prints one line at each step, at once::

    open                   the archive is
    half 7                 half the bytes of instance 7 were written
    kept 7                 it was acknowledged
    refused 7 0xA700 ...   or refused, and why
    closed
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from dicom_secure_node.archive import Archive
from dicom_secure_node.errors import StoreRefused
from tests.archive.instances import data_set, provenance

PIXELS = 100_000  # bytes, by default


def uid(number: int) -> str:
    """Return the SOP Instance UID of a made-up instance."""
    return f"1.2.3.4.{number}"


def instance(number: int, size: int = PIXELS) -> bytes:
    """Return its data set."""
    return data_set(uid(number), pixels=(b"%08d" % number) * (size // 8))


def say(*words: object) -> None:
    """Print one line in one system call, and not the one that writes files: tests count those."""
    os.writev(1, [" ".join(map(str, words)).encode() + b"\n"])


def main(folder: Path, first: int, count: int, size: int = PIXELS) -> None:
    """Store the instances."""
    archive = Archive(folder, minimum_free=0)
    say("open")
    for number in range(first, first + count):
        data = instance(number, size)
        incoming = None
        try:
            incoming = archive.receive(provenance(uid(number), association_id=str(number)))
            incoming.write(data[: len(data) // 2])
            say("half", number)
            incoming.write(data[len(data) // 2 :])
            incoming.keep()
            say("kept", number)
        except StoreRefused as exc:
            say("refused", number, f"0x{exc.status:04X}", exc)
        finally:
            if incoming is not None:
                incoming.abandon()
    archive.close()
    say("closed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
