"""Is what a repository has what the nodes' own stores have, and in their order?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from dicom_secure_node.audit.collecting.files import Follower
from dicom_secure_node.audit.collecting.repeats import mark_of
from dicom_secure_node.audit.stored import Stored
from dicom_secure_node.durable.journal import Journal

_BOM = b"\xef\xbb\xbf"


@dataclass
class Source:
    """One node: what it stored, and how far the repository is with it.

    Attributes
    ----------
    stored : list of bytes
        Digests; the first is that of message 1.
    highest : int
        Of the numbers that have arrived.
    """

    stored: list[bytes]
    highest: int = 0
    missing: set[int] = field(default_factory=set)


@dataclass
class Tally:
    """What the comparison found; `lost`, `disordered` and `altered` are to be 0."""

    sent: int = 0
    arrived: int = 0
    duplicates: int = 0
    lost: int = 0
    disordered: int = 0
    altered: int = 0
    torn: int = 0  # a line half written when the repository was killed

    @property
    def good(self) -> bool:
        """Return whether everything is there, in order and as it was."""
        return not (self.lost or self.disordered or self.altered)


def compare(sources: dict[bytes, Source], arrived: Iterable[bytes], *, torn: bool) -> Tally:
    """Return what the repository makes of the sources.

    Parameters
    ----------
    sources : dict
        By HOSTNAME.
    arrived : iterable of bytes
        SYSLOG-MSGs in the order of the repository.
    torn : bool
        The repository may write half a message when it is killed.
    """
    tally = Tally(sent=sum(len(one.stored) for one in sources.values()))
    for raw in arrived:
        tally.arrived += 1
        mark = mark_of(raw)
        source = sources.get(mark.source.split(b" ")[0]) if mark else None
        fits = mark is not None and source is not None and mark.number <= len(source.stored)
        digest = _digest(raw.partition(_BOM)[2])
        if not fits or source.stored[mark.number - 1] != digest:
            tally.torn += torn
            tally.altered += not torn
        elif mark.number > source.highest:
            source.missing.update(range(source.highest + 1, mark.number))
            source.highest = mark.number
        elif mark.number in source.missing:  # after one that follows it
            source.missing.remove(mark.number)
            tally.disordered += 1
        else:
            tally.duplicates += 1
    for source in sources.values():
        tally.lost += len(source.missing) + len(source.stored) - source.highest
    return tally


def stored(folder: Path) -> Source:
    """Return what a trail, stopped by now, has in its store."""
    with Journal(folder, "audit") as journal:
        return Source([_digest(Stored.of(entry).xml) for entry in journal.read_from(1)])


def collected(folder: Path) -> Iterator[bytes]:
    """Yield what ``audit collect`` has."""
    follower = Follower(folder, 1)
    while lines := follower.read(2**62):
        for line, _ in lines:
            if not line.note:
                yield line.arrival().raw


def in_file(path: Path) -> Iterator[bytes]:
    """Yield what rsyslog has, a message a line."""
    with path.open("rb") as file:
        for line in file:
            yield line.removesuffix(b"\n")


def _digest(xml: bytes) -> bytes:
    return blake2b(xml, digest_size=12).digest()
