"""Make digital signatures (PS3.15 C.1 to C.4, PS3.3 C.12.1.1.3).

In this order:

1. the elements to sign are chosen by the profile; what it demands and nobody can sign is refused,
2. a MAC ID that nobody uses in the whole instance, a new UID, the time with its offset from UTC,
3. the signature's own item is encoded, but for certificate and signature value,
4. the stream of elements and item is hashed and signed,
5. a certified timestamp over the signature value is asked for, where one is wanted,
6. both sequences are put in place; every other byte stays as it was.

A data set in another encoding than explicit VR little endian is converted first and stays
converted: its signature could not be verified otherwise (PS3.15 A.3).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from cryptography.hazmat.primitives.serialization import Encoding
from pydicom.uid import generate_uid

from dicom_secure_node.elements.explicit import Element, Item, Reader
from dicom_secure_node.elements.syntax import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    encoding_of,
)
from dicom_secure_node.elements.walk import UNDEFINED
from dicom_secure_node.errors import ConfigurationError, InvalidDataSet, ServiceUnavailable
from dicom_secure_node.pki.signers import Signer
from dicom_secure_node.signatures.conformity import SignedFacts, missing_for
from dicom_secure_node.signatures.facts import instance_facts
from dicom_secure_node.signatures.items import (
    CERTIFICATE,
    CERTIFICATE_TYPE,
    CODE_MEANING,
    CODE_VALUE,
    CODING_SCHEME,
    DATA_ELEMENTS_SIGNED,
    MAC_ALGORITHM,
    MAC_ID,
    MAC_SYNTAX,
    PURPOSE,
    SIGNATURE,
    SIGNATURE_DATETIME,
    SIGNATURE_UID,
    TIMESTAMP,
    TIMESTAMP_TYPE,
    mac_parameters,
)
from dicom_secure_node.signatures.levels import check_tags
from dicom_secure_node.signatures.mac import (
    MAC_PARAMETERS,
    Mac,
    feed,
    may_be_signed,
    new_hash,
)
from dicom_secure_node.signatures.places import places_with
from dicom_secure_node.signatures.profiles import CREATOR, Profile, tags_to_sign
from dicom_secure_node.signatures.signer_certificate import signer_certificate
from dicom_secure_node.signatures.source import Source, open_file
from dicom_secure_node.signatures.writing import (
    Edit,
    edited,
    encode,
    encode_item,
    growth,
    longer,
    macro_edits,
    with_transfer_syntax,
)
from dicom_secure_node.spec.signatures import (
    CERTIFIED_TIMESTAMP_TYPE,
    MAC_ALGORITHMS,
    PURPOSES,
    X509_CERTIFICATE_TYPE,
    MacAlgorithm,
    Purpose,
)

_MAC_IDS = 1 << 16
_STEP = re.compile(r"\(([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})\)\[([1-9][0-9]{0,5})\]")


class Authority(Protocol):
    """Somebody who certifies the time: `pki.timestamps.TimestampAuthority`."""

    def stamp(self, data: bytes) -> bytes:
        """Return the TimeStampToken over `data`, DER."""


@dataclass(frozen=True)
class Order:
    """What kind of signature is wanted.

    Attributes
    ----------
    profile : Profile
        C.2, Creator RSA, by default.
    algorithm : str
        MAC Algorithm; one of the six of C.1. MD5, SHA1 and RIPEMD160 are for old receivers only.
    purpose : Purpose or None
        Stated in the signature. C.4 demands one.
    extra, without : tuple of int
        Tags to sign besides those the profile wants, and tags to leave alone.
    location : str
        Where: empty for the main data set, or e.g. ``(0040,A730)[2]``, items from 1.
    authority : Authority or None
        Certifies the time.
    """

    profile: Profile = CREATOR
    algorithm: str = "SHA256"
    purpose: Purpose | None = None
    extra: tuple[int, ...] = ()
    without: tuple[int, ...] = ()
    location: str = ""
    authority: Authority | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        found = MAC_ALGORITHMS.get(self.algorithm)
        if found is None or not found.base:
            six = ", ".join(term for term, one in MAC_ALGORITHMS.items() if one.base)
            raise ConfigurationError(
                f"found MAC algorithm {self.algorithm!r}, wanted one of {six} (PS3.15 C.1)"
            )


@dataclass(frozen=True)
class Made:
    """A signature that was made.

    Attributes
    ----------
    uid : str
        Digital Signature UID.
    tags : tuple of int
        Elements signed.
    transfer_syntax : str
        Of the signed instance.
    converted : bool
        It was in another one before.
    """

    uid: str
    tags: tuple[int, ...]
    transfer_syntax: str
    converted: bool


def sign_file(
    path: Path,
    out: BinaryIO,
    signer: Signer,
    order: Order | None = None,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    new_uid: Callable[[], str] = generate_uid,
) -> Made:
    """Write a signed copy of a Part 10 file.

    Parameters
    ----------
    path : Path
    out : binary file
        Open for writing, empty.
    signer : Signer
        Whose key, and certificate.
    order : Order, optional
        What kind of signature; C.2 with SHA-256 by default.
    clock, new_uid : callable
        The time (aware), and UIDs.

    Raises
    ------
    InvalidDataSet
        The file is none, or the profile cannot be met: the text says what is missing.
    ConfigurationError
        The order makes no sense, or the certificate is not valid at this time.
    ServiceUnavailable
        Token or timestamp authority are away; nothing was written.
    OSError
    """
    with open_file(path, tidy=True) as source:
        made, edits = prepare(source, signer, order or Order(), clock=clock, new_uid=new_uid)
        assert source.header is not None
        with path.open("rb") as file:
            header = file.read(source.header.offset)
        if made.converted:
            header = with_transfer_syntax(header, made.transfer_syntax)
        out.write(header)
        for piece in signed_pieces(source, edits, made.transfer_syntax):
            out.write(piece)
    return made


def prepare(
    source: Source,
    signer: Signer,
    order: Order,
    *,
    clock: Callable[[], datetime],
    new_uid: Callable[[], str],
) -> tuple[Made, list[Edit]]:
    """Return a signature over an open instance and the edits that put it in.

    Raises
    ------
    InvalidDataSet, ConfigurationError, ServiceUnavailable
        See `sign_file`.
    """
    reader = source.reader
    elements, end, chain = _level_at(source, order.location)
    algorithm = MAC_ALGORITHMS[order.algorithm]
    syntax = signed_syntax(source.transfer_syntax)
    tags = _chosen(source, elements, order, syntax)  # (1)
    mac_id = _free_mac_id(reader, source.elements)  # (2)
    uid = new_uid()
    moment = clock()
    _check_validity(signer, moment)
    head = _item_head(mac_id, uid, moment)  # (3)
    tail = _purpose(order.purpose)
    digest = Mac(frozenset(tags), new_hash(algorithm.hashlib))  # (4)
    feed(reader, elements, [digest], frozenset(tags))
    digest.hash.update(head + _purpose_stream(order.purpose))
    value = _signed(signer, algorithm, digest.hash.digest())
    stamp = b""
    if order.authority is not None:  # (5)
        token = order.authority.stamp(value)
        stamp = encode(TIMESTAMP_TYPE, b"CS", CERTIFIED_TIMESTAMP_TYPE.encode())
        stamp += encode(TIMESTAMP, b"OB", token)
    certificate = signer.certificate.public_bytes(Encoding.DER)
    signature_item = encode_item(
        [
            head,
            encode(CERTIFICATE, b"OB", certificate),
            encode(SIGNATURE, b"OB", value),
            stamp,
            tail,
        ]
    )
    mac_item = encode_item(_mac_elements(mac_id, syntax, algorithm, tags))
    edits = macro_edits(reader, elements, end, mac_item, signature_item)  # (6)
    edits += [longer(length, at, growth(edits)) for length, at in chain]
    return Made(uid, tags, syntax, syntax != source.transfer_syntax), edits


def signed_pieces(
    source: Source, edits: list[Edit], transfer_syntax: str
) -> Iterator[bytes | memoryview]:
    """Yield the data set with its edits made, in the encoding of `transfer_syntax`."""
    reader = source.reader
    start = source.elements[0].start
    end = source.elements[-1].end
    pieces = edited(memoryview(reader.buffer), start, end, edits)
    if not encoding_of(transfer_syntax).deflated:
        yield from pieces
        return
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    for piece in pieces:
        yield deflate.compress(piece)
    last = deflate.flush()
    yield last + b"\0" * (len(last) % 2)  # PS3.5 A.5: to an even length


def signed_syntax(transfer_syntax: str) -> str:
    """Return the transfer syntax an instance is in once it is signed; the MAC names it, too."""
    encoding = encoding_of(transfer_syntax)
    if encoding.explicit and encoding.little:
        return transfer_syntax
    return EXPLICIT_VR_LITTLE_ENDIAN


def _level_at(source: Source, location: str) -> tuple[list[Element], int, list[tuple[int, int]]]:
    """Return the elements of a level, where it ends, and the length fields around it.

    A length field is given as what it says and where it is; undefined ones are left out.
    """
    if not source.elements:
        raise InvalidDataSet("an empty data set", "elements to sign")
    elements, end = source.elements, source.elements[-1].end
    lengths: list[tuple[int, int]] = []
    for depth, step in enumerate(location.split("/") if location else [], start=1):
        element, item = _step(source.reader, elements, step, depth)
        for length, at in (
            (element.length, element.value - 4),
            (
                int.from_bytes(source.reader.buffer[item.value - 4 : item.value], "little"),
                item.value - 4,
            ),
        ):
            if length != UNDEFINED:
                lengths.append((length, at))
        elements, end = item.elements, item.stop
    if not elements:
        raise InvalidDataSet("an empty item", "elements to sign", location)
    return elements, end, lengths


def _step(reader: Reader, elements: list[Element], step: str, depth: int) -> tuple[Element, Item]:
    match = _STEP.fullmatch(step)
    if match is None:
        raise ConfigurationError(f"found the location {step!r}, wanted one like (0040,A730)[2]")
    tag, number = int(match[1] + match[2], 16), int(match[3])
    element = next((e for e in elements if e.tag == tag and e.vr == b"SQ"), None)
    items = reader.items(element, depth) if element else []
    if element is None or number > len(items):
        raise InvalidDataSet(f"{len(items)} items", f"at least {number}", step)
    return element, items[number - 1]


def _chosen(source: Source, elements: list[Element], order: Order, syntax: str) -> tuple[int, ...]:
    """Return the tags to sign; refuse where they would not satisfy the profile."""
    reader = source.reader
    present = [element.tag for element in elements]
    check_tags(present)
    signable = [element.tag for element in elements if may_be_signed(reader, element)]
    facts = instance_facts(reader, source.elements, source.transfer_syntax)
    tags = tags_to_sign(
        order.profile, signable, sop_class=facts.sop_class, extra=order.extra,
        without=order.without,
    )  # fmt: skip
    for tag in order.extra:
        if tag in present and tag not in signable:
            raise InvalidDataSet(
                "an element of VR UN", "a known VR", f"({tag >> 16:04X},{tag & 0xFFFF:04X})",
                "PS3.3 C.12.1.1.3.1.1",
            )  # fmt: skip
    shortfall = missing_for(
        order.profile,
        SignedFacts(
            signed=frozenset(tags),
            present=frozenset(present),
            unsignable=frozenset(present) - frozenset(signable),
            at_top_level=not order.location,
            algorithm=order.algorithm,
            transfer_syntax=syntax,
            certificate_type=X509_CERTIFICATE_TYPE,
            key_is_rsa=True,
            purpose=order.purpose,
            sop_class=facts.sop_class,
            verification_flag=facts.verification_flag,
            verifying_observers=facts.verifying_observers,
            reference_algorithms=facts.reference_algorithms,
        ),
    )
    if shortfall:
        raise InvalidDataSet(
            f"{order.profile.name} signature impossible: {'; '.join(shortfall)}",
            order.profile.title, clause=str(order.profile),
        )  # fmt: skip
    return tags


def _free_mac_id(reader: Reader, elements: list[Element]) -> int:
    """Return a MAC ID that nothing in the whole instance uses, whatever the level."""
    levels = [elements, *(p.elements for p in places_with(MAC_PARAMETERS, reader, elements))]
    used = {one.mac_id for level in levels for one in mac_parameters(reader, level, _MAC_IDS)}
    for candidate in range(_MAC_IDS):
        if candidate not in used:
            return candidate
    raise InvalidDataSet("every MAC ID in use", "a free one", "(0400,0005)")


def _check_validity(signer: Signer, moment: datetime) -> None:
    certificate = signer.certificate
    if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
        raise ConfigurationError(
            f"found {moment:%Y-%m-%d %H:%M:%S} UTC, wanted a time within the validity of the "
            f"signer's certificate, {certificate.not_valid_before_utc:%Y-%m-%d} to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        )


def _item_head(mac_id: int, uid: str, moment: datetime) -> bytes:
    """Return the elements of the signature's item before its certificate."""
    made = moment.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")
    return b"".join(
        (
            encode(MAC_ID, b"US", mac_id.to_bytes(2, "little")),
            encode(SIGNATURE_UID, b"UI", uid.encode("ascii")),
            encode(SIGNATURE_DATETIME, b"DT", made.encode("ascii")),
            encode(CERTIFICATE_TYPE, b"CS", X509_CERTIFICATE_TYPE.encode("ascii")),
        )
    )


def _purpose_item(purpose: Purpose) -> bytes:
    meaning = PURPOSES.get(purpose.code, "Signature")
    return b"".join(
        (
            encode(CODE_VALUE, b"SH", purpose.code.encode("ascii")),
            encode(CODING_SCHEME, b"SH", purpose.scheme.encode("ascii")),
            encode(CODE_MEANING, b"LO", meaning.encode("ascii")),
        )
    )


def _purpose(purpose: Purpose | None) -> bytes:
    if purpose is None:
        return b""
    return encode(PURPOSE, b"SQ", encode_item([_purpose_item(purpose)]))


def _purpose_stream(purpose: Purpose | None) -> bytes:
    """Return the purpose as it goes into the MAC: a sequence without lengths."""
    if purpose is None:
        return b""
    header = _purpose(purpose)[:6] + b"\0\0"
    return header + b"\xfe\xff\x00\xe0" + _purpose_item(purpose) + b"\xfe\xff\xdd\xe0"


def _mac_elements(
    mac_id: int, syntax: str, algorithm: MacAlgorithm, tags: tuple[int, ...]
) -> Iterator[bytes]:
    listed = b"".join(
        (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") for tag in tags
    )
    yield encode(MAC_ID, b"US", mac_id.to_bytes(2, "little"))
    yield encode(MAC_SYNTAX, b"UI", syntax.encode("ascii"))
    yield encode(MAC_ALGORITHM, b"CS", algorithm.term.encode("ascii"))
    yield encode(DATA_ELEMENTS_SIGNED, b"AT", listed)


def _signed(signer: Signer, algorithm: MacAlgorithm, digest: bytes) -> bytes:
    """Return the signature value, once its own certificate has confirmed it."""
    digest_info = algorithm.digest_info + digest
    value = signer.sign_digest_info(digest_info)
    certificate = signer_certificate(signer.certificate.public_bytes(Encoding.DER))
    if certificate.opened(value) != digest_info:
        raise ServiceUnavailable("signing key", "what it made does not verify")
    return value
