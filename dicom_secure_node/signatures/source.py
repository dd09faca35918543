"""Where the elements of an instance lie: a file or bytes, made Explicit VR Little Endian.

A data set that is so already is looked at where it is, mapped into memory, and nothing is copied.
Any other is converted first (PS3.3 C.12.1.1.3.1.1: a MAC is computed over explicit VR little
endian), into a file of its own without a name, so that memory stays flat.
"""

from __future__ import annotations

import mmap
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from dicom_secure_node.elements.convert import is_tidy, to_explicit_little
from dicom_secure_node.elements.explicit import Element, Reader
from dicom_secure_node.elements.part10 import TRANSFER_SYNTAX, Header, read_header
from dicom_secure_node.elements.syntax import EXPLICIT_LITTLE, encoding_of
from dicom_secure_node.elements.walk import Buffer
from dicom_secure_node.errors import InvalidDataSet
from dicom_secure_node.signatures.mac import DIGITAL_SIGNATURES
from dicom_secure_node.signatures.places import places_with

_READ_WHOLE = 4 << 20  # bytes; below, reading is faster than mapping


@dataclass(frozen=True)
class Source:
    """An instance whose elements can be read.

    Attributes
    ----------
    transfer_syntax : str
        UID, of the data set as it was found.
    reader : Reader
        Of its elements in Explicit VR Little Endian.
    elements : list of Element
        Of the main data set.
    converted : bool
        They were in another encoding.
    header : Header or None
        File Meta Information, where it was a file.
    """

    transfer_syntax: str
    reader: Reader = field(repr=False)
    elements: list[Element] = field(repr=False)
    converted: bool = False
    header: Header | None = field(default=None, repr=False)


@contextmanager
def open_file(path: Path, *, tidy: bool = False) -> Iterator[Source]:
    """Open a Part 10 file; `tidy` is for who is going to sign it, see `open_data_set`.

    Raises
    ------
    InvalidDataSet
        It is none, or cannot be walked.
    OSError
        It cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise InvalidDataSet("no regular file", "a DICOM file")  # opening a pipe would wait
    with path.open("rb") as file:
        header = read_header(file)
        with open_data_set(file, header.text(TRANSFER_SYNTAX), header, tidy=tidy) as source:
            yield source


@contextmanager
def open_data_set(
    file: BinaryIO, transfer_syntax: str, header: Header | None = None, *, tidy: bool = False
) -> Iterator[Source]:
    """Open the data set that begins at a file's position and goes to its end.

    Parameters
    ----------
    file : binary file
        A real one, or `io.BytesIO`.
    transfer_syntax : str
    header : Header, optional
    tidy : bool
        Where the data set has no signature yet, leave out superfluous padding and the like, over
        which products disagree (`elements.convert.is_tidy`).

    Raises
    ------
    InvalidDataSet
        It cannot be walked.
    OSError
        It cannot be read.
    """
    offset = file.tell()
    encoding = encoding_of(transfer_syntax)
    with _contents(file, offset) as (buffer, start):
        if encoding == EXPLICIT_LITTLE:
            reader = Reader(buffer)
            elements = reader.level(start, len(buffer))
            if not (tidy and _to_be_tidied(buffer, start, elements)):
                yield Source(transfer_syntax, reader, elements, header=header)
                return
        with tempfile.TemporaryFile() as scratch:
            with memoryview(buffer) as view, view[start:] as data_set:
                to_explicit_little(data_set, encoding, scratch, tidy=tidy)
            scratch.flush()
            with _contents(scratch, 0) as (converted, _):
                reader = Reader(converted)
                elements = reader.level(0, len(converted))
                yield Source(transfer_syntax, reader, elements, converted=True, header=header)


def _to_be_tidied(buffer: Buffer, start: int, elements: list[Element]) -> bool:
    """Tell whether there is something to tidy and no signature that would break of it."""
    if any(element.tag == DIGITAL_SIGNATURES for element in elements):
        return False
    with memoryview(buffer) as view, view[start:] as data_set:
        if next(places_with(DIGITAL_SIGNATURES, Reader(buffer), elements), None):
            return False
        return not is_tidy(data_set)


@contextmanager
def _contents(file: BinaryIO, offset: int) -> Iterator[tuple[Buffer, int]]:
    """Give the bytes of a file and where in them those from `offset` begin."""
    try:
        descriptor = file.fileno()
    except OSError:  # not a real file (io.UnsupportedOperation)
        yield file.read(), 0
        return
    size = os.fstat(descriptor).st_size
    if size - offset <= _READ_WHOLE:
        yield os.pread(descriptor, max(size - offset, 0), offset), 0
        return
    mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    try:
        yield mapped, offset  # type: ignore[misc] # see elements.walk.Buffer
    finally:
        with suppress(BufferError):  # somebody keeps a view: it is unmapped with the last one
            mapped.close()
