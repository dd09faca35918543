"""Take digital signatures out of an instance and leave every other byte where it was.

With a signature goes the MAC Parameters item that only it referred to; a sequence whose last item
goes, goes too. Signatures below (0400,0561) Original Attributes Sequence belong to a former state
and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicom_secure_node.elements.explicit import Element, Reader
from dicom_secure_node.signatures.copying import write_file
from dicom_secure_node.signatures.items import SignatureItem, mac_parameters, signature_items
from dicom_secure_node.signatures.mac import DIGITAL_SIGNATURES, MAC_PARAMETERS
from dicom_secure_node.signatures.nested import (
    Change,
    Nest,
    enclosed,
    lengths_around,
    nests_with,
    outermost,
)
from dicom_secure_node.signatures.source import Source, open_file
from dicom_secure_node.signatures.writing import Edit

_ALL = 1 << 20  # items of a level; a reader gives up before

Goes = Callable[[str, int, SignatureItem], bool]
"""Tells of a signature whether it goes: by location, place among its like, and what it says."""


@dataclass(frozen=True)
class Stripped:
    """What was taken out.

    Attributes
    ----------
    uids : tuple of str
        Digital Signature UIDs; empty for what had none that could be read.
    transfer_syntax : str
        Of the new file.
    converted : bool
        It was in another one before, which no signature can be made in.
    """

    uids: tuple[str, ...]
    transfer_syntax: str
    converted: bool


def strip(path: Path, out: BinaryIO, uids: Collection[str] | None = None) -> Stripped:
    """Write a copy of a Part 10 file without some of its signatures.

    Parameters
    ----------
    path : Path
    out : binary file
        Open for writing, empty.
    uids : collection of str, optional
        Digital Signature UIDs of those that go; all go where left out. One that is not there is
        no error: compare with `Stripped.uids`.

    Raises
    ------
    InvalidDataSet
        The file is none, or cannot be walked.
    OSError

    Notes
    -----
    A file in implicit VR or big endian becomes explicit VR little endian, as it does when it is
    signed. One that loses nothing is copied as it is.
    """
    taken: list[str] = []

    def goes(_where: str, _place: int, item: SignatureItem) -> bool:
        chosen = uids is None or item.uid in uids
        if chosen:
            taken.append(item.uid)
        return chosen

    with open_file(path) as source:
        edits = strip_edits(source, goes)
        if not edits:
            copy(path, out)
            return Stripped((), source.transfer_syntax, False)
        syntax = write_file(path, source, edits, out)
        return Stripped(tuple(taken), syntax, syntax != source.transfer_syntax)


def strip_edits(source: Source, goes: Goes) -> list[Edit]:
    """Return the edits that take signatures out of an open instance.

    Parameters
    ----------
    source : Source
    goes : callable
        See `Goes`. Asked once for each signature.

    Raises
    ------
    InvalidDataSet
        A sequence that may hold signatures cannot be read.
    """
    if not source.elements:
        return []
    reader = source.reader
    changes: list[Change] = []
    for nest in nests_with(DIGITAL_SIGNATURES, reader, outermost(source.elements)):
        changes += _changes(reader, nest, goes)
    return enclosed(changes)


def copy(path: Path, out: BinaryIO) -> None:
    """Write a file as it is."""
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            out.write(piece)


def _changes(reader: Reader, nest: Nest, goes: Goes) -> Iterator[Change]:
    """Yield what takes signatures, and then MAC parameters, out of one level."""
    stay: set[int | None] = set()
    gone: set[int | None] = set()
    for holder in (e for e in nest.elements if e.tag == DIGITAL_SIGNATURES):
        items = signature_items(reader, [holder], _ALL)[0] if holder.vr == b"SQ" else []
        going = [goes(nest.location, place, item) for place, item in enumerate(items)]
        for item, goes_now in zip(items, going, strict=True):
            (gone if goes_now else stay).add(item.mac_id)
        if not items:
            gone.add(None)  # nothing in it refers to anything
        yield from _without(reader, nest, holder, going)
    if not gone:
        return
    for holder in (e for e in nest.elements if e.tag == MAC_PARAMETERS and e.vr == b"SQ"):
        macs = mac_parameters(reader, [holder], _ALL)
        unused = [not stay or one.mac_id in gone - stay - {None} for one in macs]
        yield from _without(reader, nest, holder, unused)


def _without(reader: Reader, nest: Nest, holder: Element, going: list[bool]) -> Iterator[Change]:
    """Yield what takes some items out of a sequence, or the sequence where none stays."""
    if all(going):
        yield Edit(holder.start, holder.end, b""), nest.around
        return
    around = lengths_around(nest, holder)
    for item, goes in zip(reader.items(holder, nest.depth + 1), going, strict=True):
        if goes:
            yield Edit(item.start, item.end, b""), around
