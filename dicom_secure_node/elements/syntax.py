"""How a transfer syntax encodes data elements (PS3.5 section 7 and Annex A)."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from dicom_secure_node.errors import InvalidDataSet

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

_DEFLATED = frozenset(
    {
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
        "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
        "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
    }
)


class Encoding(NamedTuple):
    """The three things about a transfer syntax that a walk over elements needs.

    Attributes
    ----------
    explicit : bool
        Each element carries its VR.
    little : bool
        Little endian byte order.
    deflated : bool
        The whole data set is one raw deflate stream (RFC 1951) and must be inflated first.
    """

    explicit: bool
    little: bool
    deflated: bool = False


IMPLICIT_LITTLE = Encoding(explicit=False, little=True)
EXPLICIT_LITTLE = Encoding(explicit=True, little=True)
EXPLICIT_BIG = Encoding(explicit=True, little=False)


def encoding_of(transfer_syntax: str) -> Encoding:
    """Return how a data set in the transfer syntax with this UID is encoded.

    Everything but the four named above is Explicit VR Little Endian (PS3.5 A.4), private
    transfer syntaxes included as far as anybody can know.
    """
    if transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN:
        return IMPLICIT_LITTLE
    if transfer_syntax == EXPLICIT_VR_BIG_ENDIAN:
        return EXPLICIT_BIG
    return EXPLICIT_LITTLE._replace(deflated=transfer_syntax in _DEFLATED)


class Inflated(NamedTuple):
    """The beginning of an inflated data set; `whole` when there is no more of it."""

    data: bytes
    whole: bool


def inflate(deflated: bytes | memoryview, limit: int) -> Inflated:
    """Return at most `limit` bytes of what was deflated: no bomb gets past it.

    Parameters
    ----------
    deflated : bytes-like
        A raw deflate stream or its beginning (PS3.5 A.5).
    limit : int
        Bytes.

    Raises
    ------
    InvalidDataSet
        Not a deflate stream.
    """
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = stream.decompress(deflated, limit)
    except zlib.error as exc:
        raise InvalidDataSet(
            "bytes that do not inflate", "a raw deflate stream", clause="PS3.5 A.5"
        ) from exc
    return Inflated(data, stream.eof)
