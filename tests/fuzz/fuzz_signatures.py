"""Damage signed instances at random.

A few hundred rounds are part of every build; ``.ci/fuzz_signatures.py`` goes on for as long as one
likes. Two things must never happen: an exception out of the verifier, and a valid signature
over elements in which another reader, pydicom, finds other values than were signed.
"""

from __future__ import annotations

import io
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from dicom_secure_node.elements.explicit import Reader
from dicom_secure_node.signatures.profiles import BASE
from dicom_secure_node.signatures.report import InstanceReport
from dicom_secure_node.signatures.sign import Order
from dicom_secure_node.spec.signatures import ASTM_SIGPURPOSE, Purpose, never_signed
from tests.signatures.making import (
    ALL,
    EXPLICIT,
    NAME,
    SEQUENCE_END,
    UNDEFINED,
    element,
    encapsulated,
    item,
    meta,
    report_of,
    sequence,
    signed,
    signer,
    verifier,
)

SYNTAXES = (EXPLICIT, "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
TOKENS = (
    item(),
    item(undefined=True),
    SEQUENCE_END,
    NAME,
    element(0x00081140, "SQ", length=UNDEFINED),
    sequence(0x00081140, item(NAME)),
    element(0x00091001, "UN", b"ab"),
    element(0x00091001, "UN", length=UNDEFINED),
    element(0xFFFCFFFC, "OB", bytes(4)),
    b"\xff\xff\xff\xff",
    bytes(4),
    b"ZZ",
)


@lru_cache(maxsize=1)
def seeds() -> tuple[bytes, ...]:
    """Return signed data sets: native, compressed with a purpose, nested, and by two signers."""
    native = b"".join(ALL)
    some = sequence(0x00400275, item(NAME, undefined=True), undefined=True)
    compressed = b"".join(ALL[:-1]) + some + encapsulated(b"", b"\xff\xd8\xff\xd9", b"ab")
    return (
        signed(native),
        signed(compressed, Order(BASE, "SHA512", Purpose("1", ASTM_SIGPURPOSE))),
        signed(signed(native, Order(BASE, location="(0008,2218)[1]"))),
        signed(signed(native, Order(BASE, without=(0x00100010,))), by=signer("bob")),
    )


# -- damage --------------------------------------------------------------------------------


def _flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 2, 8))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _set(data: bytearray, dice: random.Random) -> None:
    data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))


def _cut(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    del data[start : start + dice.choice((1, 2, 4, 8, 100))]


def _move(data: bytearray, dice: random.Random) -> None:
    start, size = dice.randrange(len(data)), dice.choice((2, 8, 12, 40))
    part = data[start : start + size]
    if dice.random() < 0.5:
        del data[start : start + size]
    at = dice.randrange(len(data) + 1)
    data[at:at] = part


def _insert(data: bytearray, dice: random.Random) -> None:
    starts = _starts(bytes(data))
    at = dice.choice(starts) if starts and dice.random() < 0.7 else dice.randrange(len(data) + 1)
    token = dice.choice(TOKENS)
    if dice.random() < 0.3:
        data[at : at + len(token)] = token
    else:
        data[at:at] = token


DAMAGE: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _set, _cut, _move, _insert, _insert,
)  # fmt: skip


def _starts(data: bytes) -> list[int]:
    """Return where elements of the main level begin, as far as it can be read."""
    try:
        return [one.start for one in Reader(data).level(0, len(data))]
    except Exception:  # anything: it is damaged
        return []


def damaged(seed: bytes, dice: random.Random) -> bytes:
    """Return a data set with some damage."""
    data = bytearray(seed)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        dice.choice(DAMAGE)(data, dice)
        if not data:
            break
    return bytes(data)


# -- what must not happen ------------------------------------------------------------------


def check(data: bytes, seed: bytes | None = None) -> InstanceReport:
    """Fail where the verifier raises, or calls valid what pydicom reads otherwise.

    Parameters
    ----------
    data : bytes
        A data set in Explicit VR Little Endian.
    seed : bytes, optional
        The signed one it was made from; None skips the comparison.
    """
    report = report_of(data)
    for one in report.signatures:
        assert one.words
    assert report.as_json()
    if seed is not None:
        valid = [one for one in report.signatures if one.valid and not one.location]
        tags = {tag for one in valid for tag in one.coverage.signed}
        if tags:
            _compare(seed, data, tags)
    return report


def check_anywhere(data: bytes) -> None:
    """Fail where the verifier raises over bytes in any encoding, bare or as a file."""
    for syntax in SYNTAXES:
        report_of(data, syntax)
    with tempfile.NamedTemporaryFile() as file:
        for whole in (data, meta() + data):
            Path(file.name).write_bytes(whole)
            verifier().verify_file(Path(file.name))


def _compare(seed: bytes, data: bytes, tags: set[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's opinions on the values
        wanted = dict(_values(read_dataset(io.BytesIO(seed), False, True)))
        try:
            found = dict(_values(read_dataset(io.BytesIO(data), False, True)))
        except Exception:  # whatever pydicom does not read, it shows to nobody
            return
    for tag in tags:
        if tag in wanted:
            assert found.get(tag) == wanted[tag], f"{tag:08X}"


def _values(ds: Dataset) -> Iterator[tuple[int, object]]:
    """Yield tag and value of what may be signed, sequences as nested tuples."""
    for tag in ds.keys():  # noqa: SIM118 - a Dataset is no dict
        raw = ds.get_item(tag)
        if never_signed(int(tag)) is not None:
            continue
        if raw.VR == "SQ":
            yield int(tag), tuple(tuple(_values(inner)) for inner in ds[tag].value)
        elif isinstance(raw, RawDataElement):
            yield int(tag), (raw.VR, raw.value or b"")
        else:
            yield int(tag), (raw.VR, raw.value)


def one_input(data: bytes) -> None:
    """Do with the bytes of a fuzzer what the short run does with dice."""
    if len(data) < 8:
        return
    seed = seeds()[data[0] % len(seeds())]
    check(damaged(seed, random.Random(data[:8])), seed)
    check(data)
    check_anywhere(data)
