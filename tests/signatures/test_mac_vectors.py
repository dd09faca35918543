"""Known answers for the byte stream of a MAC.

Both were written down by hand from PS3.3 C.12.1.1.3.1.1 and C.12.1.1.3.1.2; an RSA signature over
B was made with `cryptography` and accepted by dcmsign 3.6.7. They stand here and not in a file,
so that a reader can lay the section beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import pytest

from dicom_secure_node.elements.explicit import Reader
from dicom_secure_node.signatures.items import signature_items
from dicom_secure_node.signatures.mac import Mac, feed, signable_tags
from tests.signatures.making import (
    NAME,
    PATIENT_ID,
    SOP_CLASS,
    SOP_INSTANCE,
    element,
    encapsulated,
    item,
    sequence,
)

A = bytes.fromhex(
    "08 00 16 00 55 49 1a 00 31 2e 32 2e 38 34 30 2e 31 30 30 30 38 2e 35 2e 31 2e 34 2e 31 2e 31"
    "2e 37 00 08 00 18 00 55 49 08 00 31 2e 32 2e 33 2e 34 00 08 00 18 22 53 51 00 00 fe ff 00 e0"
    "08 00 00 01 53 48 02 00 58 20 fe ff 00 e0 fe ff dd e0 e0 7f 10 00 4f 42 00 00 fe ff 00 e0 fe"
    "ff 00 e0 ff d8 ff d9 fe ff dd e0"
)
A_SHA256 = "170edcafbb2253f49f0bc1493c15f35ac30d27f87794481ac5de54253e2e66ed"
B = bytes.fromhex(
    "08 00 16 00 55 49 1a 00 31 2e 32 2e 38 34 30 2e 31 30 30 30 38 2e 35 2e 31 2e 34 2e 31 2e 31"
    "2e 37 00 08 00 18 00 55 49 08 00 31 2e 32 2e 33 2e 34 00 10 00 20 00 4c 4f 02 00 41 31 00 04"
    "05 00 55 53 02 00 00 00 00 04 00 01 55 49 08 00 31 2e 32 2e 33 2e 35 00 00 04 05 01 44 54 1a"
    "00 32 30 32 36 31 31 32 33 31 32 30 30 30 30 2e 30 30 30 30 30 30 2b 30 30 30 30 00 04 10 01"
    "43 53 0e 00 58 35 30 39 5f 31 39 39 33 5f 53 49 47 20 00 04 01 04 53 51 00 00 fe ff 00 e0 08"
    "00 00 01 53 48 02 00 35 20 08 00 02 01 53 48 10 00 41 53 54 4d 2d 73 69 67 70 75 72 70 6f 73"
    "65 20 08 00 04 01 4c 4f 16 00 56 65 72 69 66 69 63 61 74 69 6f 6e 20 53 69 67 6e 61 74 75 72"
    "65 fe ff dd e0"
)
B_SHA256 = "e750e4f4b8ce4fb5b48166d3f074470de55ac6e69b3b070455fb7206c1b7f8ef"


class Tape:
    """A digest that keeps what it was given."""

    def __init__(self) -> None:
        self.stream = b""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self.stream += bytes(data)

    def digest(self) -> bytes:
        return hashlib.sha256(self.stream).digest()

    def copy(self) -> Tape:
        other = Tape()
        other.stream = self.stream
        return other


def stream(data: bytes, tags: Iterable[int]) -> bytes:
    reader = Reader(data)
    tape = Tape()
    elements = reader.level(0, len(data))
    feed(reader, elements, [Mac(frozenset(tags), tape)], signable_tags(reader, elements))
    return tape.stream


def answer_a(*, undefined: bool) -> bytes:
    """Return the instance of A, in either style of lengths."""
    return (
        SOP_CLASS
        + SOP_INSTANCE
        + sequence(
            0x00082218,
            item(element(0x00080100, "SH", b"X "), undefined=undefined),
            item(undefined=undefined),
            undefined=undefined,
        )
        + encapsulated(b"", b"\xff\xd8\xff\xd9")
    )


@pytest.mark.parametrize("undefined", [False, True], ids=["with lengths", "without lengths"])
def test_a_sequence_empty_item_and_fragments(undefined: bool) -> None:
    found = stream(answer_a(undefined=undefined), (0x00080016, 0x00080018, 0x00082218, 0x7FE00010))
    assert found == A
    assert hashlib.sha256(found).hexdigest() == A_SHA256
    assert len(found) == 104


def purpose(undefined: bool) -> bytes:
    values = (
        element(0x00080100, "SH", b"5 "),
        element(0x00080102, "SH", b"ASTM-sigpurpose "),
        element(0x00080104, "LO", b"Verification Signature"),
    )
    return sequence(0x04000401, item(*values, undefined=undefined), undefined=undefined)


def answer_b(*, undefined: bool) -> bytes:
    """Return the instance of B; certificate, signature and timestamp are anything."""
    signature = (
        element(0x04000005, "US", b"\0\0"),
        element(0x04000100, "UI", b"1.2.3.5\0"),
        element(0x04000105, "DT", b"20261123120000.000000+0000"),
        element(0x04000110, "CS", b"X509_1993_SIG "),
        element(0x04000115, "OB", b"certificate "),
        element(0x04000120, "OB", b"signature "),
        element(0x04000305, "CS", b"CMS_TSP "),
        element(0x04000310, "OB", b"timestamp "),
        purpose(undefined),
    )
    signatures = sequence(0xFFFAFFFA, item(*signature, undefined=undefined), undefined=undefined)
    return SOP_CLASS + SOP_INSTANCE + NAME + PATIENT_ID + signatures


@pytest.mark.parametrize("undefined", [False, True], ids=["with lengths", "without lengths"])
def test_b_elements_and_the_signatures_own_item(undefined: bool) -> None:
    data = answer_b(undefined=undefined)
    found = stream(data, (0x00080016, 0x00080018, 0x00100020))
    reader = Reader(data)
    items, there = signature_items(reader, reader.level(0, len(data)), 10)
    assert there == 1
    assert not items[0].problem
    found += items[0].stream
    assert found == B
    assert hashlib.sha256(found).hexdigest() == B_SHA256
    assert len(found) == 222


NEVER: dict[str, Callable[[bytes], bytes]] = {
    "a group length": lambda data: element(0x00080000, "UL", b"\4\0\0\0") + data,
    "Length to End": lambda data: element(0x00080001, "UL", b"\4\0\0\0") + data,
    "MAC parameters": lambda data: data + sequence(0x4FFE0001, item()),
    "signatures": lambda data: data + sequence(0xFFFAFFFA, item()),
    "trailing padding": lambda data: data + element(0xFFFCFFFC, "OB", bytes(8)),
    "an element of VR UN": lambda data: data + element(0x00110010, "UN", b"ab"),
    "a sequence with UN somewhere": lambda data: (
        data
        + sequence(
            0x00400275,
            item(sequence(0x00400008, item(element(0x00110010, "UN", b"ab")), undefined=True)),
            item(NAME),
        )
    ),
}


@pytest.mark.parametrize("more", NEVER.values(), ids=NEVER)
def test_what_is_never_signed_stays_out_though_listed(more: Callable[[bytes], bytes]) -> None:
    data = more(SOP_INSTANCE + NAME)
    reader = Reader(data)
    everything = [one.tag for one in reader.level(0, len(data))]
    assert stream(data, everything) == SOP_INSTANCE + NAME


NEVER_NESTED = {key: value for key, value in NEVER.items() if "UN" not in key}


@pytest.mark.parametrize("more", NEVER_NESTED.values(), ids=NEVER_NESTED)
def test_it_stays_out_of_items_too(more: Callable[[bytes], bytes]) -> None:
    plain = sequence(0x00400275, item(SOP_INSTANCE + NAME))
    with_more = sequence(0x00400275, item(more(SOP_INSTANCE + NAME)))
    assert stream(with_more, [0x00400275]) == stream(plain, [0x00400275])
