"""Look over an A-ASSOCIATE-RQ before anything is made of it (PS3.8 9.3.2, Annex D).

pynetdicom's decoder takes lengths that overrun their item and requests without contexts. This
walk only checks that every item lies within the one around it, and that those that must be
there are there once; what is inside is the decoder's business.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator

from dicom_secure_node.node.limits import ProtocolFault

_FIXED = 68  # bytes before the variable items: version, AE titles, reserved
_APPLICATION_CONTEXT, _PRESENTATION_CONTEXT, _USER_INFORMATION = 0x10, 0x20, 0x50
_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX, _USER_IDENTITY = 0x30, 0x40, 0x58
_MAX_CONTEXTS = 128  # the odd numbers below 256


def check_request(body: memoryview) -> None:
    """Check the items of an A-ASSOCIATE-RQ PDU, given without its six bytes of header.

    Raises
    ------
    ProtocolFault
        Something is missing, twice there, or longer than what holds it.
    """
    if len(body) < _FIXED:
        raise ProtocolFault(f"A-ASSOCIATE-RQ of {len(body)} bytes, at least 68 (PS3.8 9.3.2)")
    seen: Counter[int] = Counter()
    for kind, content in _items(body[_FIXED:], "A-ASSOCIATE-RQ"):
        seen[kind] += 1
        if kind == _PRESENTATION_CONTEXT:
            _check_context(content)
        elif kind == _USER_INFORMATION:
            for sub_kind, sub_content in _items(content, "user information"):
                if sub_kind == _USER_IDENTITY:
                    _check_identity(sub_content)
    for kind, name in (
        (_APPLICATION_CONTEXT, "application context"),
        (_USER_INFORMATION, "user information"),
    ):
        if seen[kind] != 1:
            raise ProtocolFault(f"A-ASSOCIATE-RQ with {seen[kind]} {name} items (PS3.8 9.3.2)")
    if seen[_PRESENTATION_CONTEXT] > _MAX_CONTEXTS:
        raise ProtocolFault(
            f"A-ASSOCIATE-RQ with {seen[_PRESENTATION_CONTEXT]} presentation contexts, at most "
            f"{_MAX_CONTEXTS} have an ID (PS3.8 9.3.2.2)"
        )
    if not seen[_PRESENTATION_CONTEXT]:
        raise ProtocolFault("A-ASSOCIATE-RQ without presentation contexts (PS3.8 9.3.2)")


def without_reserved_identities(body: memoryview) -> tuple[bytes, int]:
    """Return the request without user identities of a reserved type, and how many it had.

    To an acceptor such a type is one it does not support, no fault (PS3.7 D.3.3.7);
    pynetdicom cannot represent it.
    """
    kept, left_out = bytearray(body[:_FIXED]), 0
    for kind, content in _items(body[_FIXED:], "A-ASSOCIATE-RQ"):
        if kind == _USER_INFORMATION:
            sub_items = list(_items(content, "user information"))
            known = [item for item in sub_items if not _is_reserved_identity(*item)]
            left_out = len(sub_items) - len(known)
            content = memoryview(b"".join(_item(*item) for item in known))
        kept += _item(kind, content)
    return bytes(kept), left_out


def _is_reserved_identity(kind: int, content: memoryview) -> bool:
    return kind == _USER_IDENTITY and not 1 <= content[0] <= 5


def _item(kind: int, content: memoryview) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def _items(data: memoryview, where: str) -> Iterator[tuple[int, memoryview]]:
    """Yield type and content of the items `data` consists of."""
    position = 0
    while position < len(data):
        if len(data) - position < 4:
            raise ProtocolFault(f"{where}: item cut off (PS3.8 9.3.2)")
        kind, length = struct.unpack_from(">BxH", data, position)
        end = position + 4 + length
        if end > len(data):
            raise ProtocolFault(f"{where}: item 0x{kind:02X} overruns it (PS3.8 9.3.2)")
        yield kind, data[position + 4 : end]
        position = end


def _check_context(content: memoryview) -> None:
    """Check what a presentation context names (PS3.8 Table 9-13)."""
    kinds = Counter(kind for kind, _ in _items(content[4:], "presentation context"))
    if kinds[_ABSTRACT_SYNTAX] != 1 or not kinds[_TRANSFER_SYNTAX]:
        raise ProtocolFault(
            f"presentation context with {kinds[_ABSTRACT_SYNTAX]} abstract and "
            f"{kinds[_TRANSFER_SYNTAX]} transfer syntaxes (PS3.8 9.3.2.2)"
        )


def _check_identity(content: memoryview) -> None:
    """Check the lengths of a User Identity sub-item (PS3.7 Table D.3-14)."""
    rest = content[2:]
    for field in ("primary", "secondary"):
        if len(rest) < 2:
            raise ProtocolFault(f"user identity: no {field} field length (PS3.7 D.3.3.7)")
        (length,) = struct.unpack_from(">H", rest)
        if len(rest) < 2 + length:
            raise ProtocolFault(f"user identity: {field} field overruns it (PS3.7 D.3.3.7)")
        rest = rest[2 + length :]
    if len(rest):
        raise ProtocolFault(f"user identity: {len(rest)} bytes too many (PS3.7 D.3.3.7)")
