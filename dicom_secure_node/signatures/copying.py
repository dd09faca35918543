"""Write an instance again with some edits, and every other byte as it was."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dicom_secure_node.signatures.sign import signed_pieces, signed_syntax
from dicom_secure_node.signatures.source import Source, open_data_set
from dicom_secure_node.signatures.writing import Edit, with_transfer_syntax


def header_for(path: Path, source: Source, transfer_syntax: str) -> bytes:
    """Return what stands before the data set of a file, naming another transfer syntax if need be.

    Parameters
    ----------
    path : Path
        What `source` was opened from.
    source : Source
    transfer_syntax : str
        UID of what will follow.
    """
    assert source.header is not None
    with path.open("rb") as file:
        header = file.read(source.header.offset)
    if transfer_syntax == source.transfer_syntax:
        return header
    return with_transfer_syntax(header, transfer_syntax)


@contextmanager
def edited_source(source: Source, edits: list[Edit]) -> Iterator[Source]:
    """Open what an instance becomes by some edits; it lies in a file without a name.

    It is in the transfer syntax it could be signed in (`sign.signed_syntax`).
    """
    syntax = signed_syntax(source.transfer_syntax)
    with tempfile.TemporaryFile() as scratch:
        for piece in signed_pieces(source, edits, syntax):
            scratch.write(piece)
        scratch.flush()
        scratch.seek(0)
        with open_data_set(scratch, syntax, source.header) as again:
            yield again


def write_data_set(source: Source, edits: list[Edit], out: BinaryIO) -> str:
    """Write the data set with its edits made; return its transfer syntax, see `edited_source`."""
    syntax = signed_syntax(source.transfer_syntax)
    for piece in signed_pieces(source, edits, syntax):
        out.write(piece)
    return syntax


def write_file(path: Path, source: Source, edits: list[Edit], out: BinaryIO) -> str:
    """Write the Part 10 file with its edits made; return its transfer syntax."""
    out.write(header_for(path, source, signed_syntax(source.transfer_syntax)))
    return write_data_set(source, edits, out)
