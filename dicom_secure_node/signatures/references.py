"""What a signed document says of the instances it refers to (PS3.15 A.4, PS3.3 C.17.2.1).

An SR document or Key Object Selection names its evidence by UID only, and a UID binds nothing.
A.4.b therefore has every Referenced SOP Sequence item of (0040,A375) Current Requested Procedure
Evidence and (0040,A385) Pertinent Other Evidence carry one of these, or both:

- (0400,0402) Referenced Digital Signature Sequence: UID and value of a signature in the instance,
- (0400,0403) Referenced SOP Instance MAC Sequence: a bare MAC over the instance, which the signer
  of the document vouches for.

C.4 signs both evidence sequences, so the references come first and the signature after them.
`reference_check` looks at references that are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

from pydicom.uid import generate_uid

from dicom_secure_node.elements.explicit import Reader
from dicom_secure_node.elements.part10 import TRANSFER_SYNTAX, read_header
from dicom_secure_node.elements.syntax import encoding_of, inflate
from dicom_secure_node.elements.walk import find as find_values
from dicom_secure_node.errors import ConfigurationError, InvalidDataSet, InvalidInput
from dicom_secure_node.pki.signers import Signer
from dicom_secure_node.signatures.copying import edited_source, header_for
from dicom_secure_node.signatures.facts import (
    CURRENT_EVIDENCE,
    OTHER_EVIDENCE,
    REFERENCED_SERIES,
    REFERENCED_SOP,
    SOP_INSTANCE,
    instance_facts,
)
from dicom_secure_node.signatures.items import (
    DATA_ELEMENTS_SIGNED,
    MAC,
    MAC_ALGORITHM,
    MAC_SYNTAX,
    REFERENCED_MACS,
    REFERENCED_SIGNATURES,
    SIGNATURE,
    SIGNATURE_UID,
    mac_parameters,
)
from dicom_secure_node.signatures.levels import Bounds, read_level
from dicom_secure_node.signatures.mac import DIGITAL_SIGNATURES, Mac, feed, may_be_signed, new_hash
from dicom_secure_node.signatures.nested import (
    Change,
    Nest,
    enclosed,
    inside,
    nests_with,
    outermost,
)
from dicom_secure_node.signatures.sign import Made, Order, prepare, signed_pieces, signed_syntax
from dicom_secure_node.signatures.source import Source, open_file
from dicom_secure_node.signatures.verify import Verifier
from dicom_secure_node.signatures.writing import Edit, encode, encode_item
from dicom_secure_node.spec.signatures import MAC_ALGORITHMS, MacAlgorithm

REFERENCED_INSTANCE = 0x00081155
MAX_REFERENCES = 20_000  # items of the evidence; a study has fewer
_BEGINNING = 64 << 10  # bytes of a data set; its SOP Instance UID is one of the first elements

_EVIDENCE = (CURRENT_EVIDENCE, OTHER_EVIDENCE)
_CLAUSE = "PS3.15 A.4.b"
_UID = re.compile(rb"[0-9.]{1,64}\0?")
_ALGORITHM = MAC_ALGORITHMS["SHA256"]
# A signature of one of these profiles covers what makes the instance; one of C.1 may cover next
# to nothing.
_BINDING = frozenset({"creator", "authorization", "sr", "sr-verification"})

Find: TypeAlias = Callable[[str], Path | None]
"""Returns the Part 10 file of a SOP Instance UID, None where there is none.

The UID is digits and dots, and still a text from a document: no path is to be made of it.
"""


class Evidence(NamedTuple):
    """One item of Referenced SOP Sequence in the evidence of a document.

    Attributes
    ----------
    nest : Nest
    sop_instance : str
        UID; empty where it is none.
    """

    nest: Nest
    sop_instance: str

    def references(self, reader: Reader, tag: int) -> int:
        """Return how many items (0400,0402) or (0400,0403) has."""
        element = self.nest.element(tag)
        if element is None or element.vr != b"SQ":
            return 0
        return len(reader.items(element, self.nest.depth + 1))


def evidence_of(source: Source) -> Iterator[Evidence]:
    """Yield the evidence of a document in its order.

    Raises
    ------
    InvalidDataSet
        A sequence of it is malformed, is none, or is there twice.
    """
    if not source.elements:
        return
    reader = source.reader
    document = outermost(source.elements)
    for tag in _EVIDENCE:
        for study in _items(reader, document, tag):
            for series in _items(reader, study, REFERENCED_SERIES):
                for instance in _items(reader, series, REFERENCED_SOP):
                    yield Evidence(instance, _uid(reader, instance))


def missing_references(source: Source) -> tuple[str, ...]:
    """Return which items of the evidence lack what A.4.b wants, one line each; empty if none does.

    Whether the references hold is for `reference_check` to say.

    Raises
    ------
    InvalidDataSet
        See `evidence_of`.
    """
    return tuple(
        f"{one.nest.location} has neither a signature nor a MAC of the instance ({_CLAUSE})"
        for one in evidence_of(source)
        if not _is_referenced(source.reader, one)
    )


def reference_edits(source: Source, find: Find, verifier: Verifier | None = None) -> list[Edit]:
    """Return the edits that give each item of the evidence what A.4.b wants.

    An item that has a reference keeps it as it is; whether it holds is not asked.

    Parameters
    ----------
    source : Source
        The document.
    find : callable
        See `Find`. Asked once for each instance.
    verifier : Verifier, optional
        Says which signatures of referenced instances are valid. One of the main data set that
        covers what a profile above C.1 wants, and is not weak, is referred to; where there is
        none, and always without a verifier, a MAC is made of all that can be signed.

    Raises
    ------
    InvalidDataSet
        A referenced instance is not found, is another one, or cannot be read: the text names it.
        Or the document's evidence is signed already and references would break that.
    OSError
        What `find` returned cannot be read.
    """
    reader = source.reader
    lacking = [one for one in evidence_of(source) if not _is_referenced(reader, one)]
    if len(lacking) > MAX_REFERENCES:
        raise InvalidDataSet(f"{len(lacking)} references", f"at most {MAX_REFERENCES}")
    if lacking:
        _refuse_if_signed(source)
    known: dict[str, tuple[int, bytes]] = {}
    changes: list[Change] = []
    for one in lacking:
        uid = one.sop_instance
        if uid not in known:
            known[uid] = _reference_to(one, find, verifier)
        tag, content = known[uid]
        empty = one.nest.element(tag)  # a sequence without items refers to nothing
        place = one.nest.place_for(tag)
        edit = Edit(place, place, content)
        if empty is not None:
            edit = Edit(empty.start, empty.end, content)
        changes.append((edit, one.nest.around))
    return enclosed(changes)


def sign_document(
    path: Path,
    out: BinaryIO,
    signer: Signer,
    order: Order,
    find: Find,
    *,
    verifier: Verifier | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    new_uid: Callable[[], str] = generate_uid,
) -> Made:
    """Write a copy of an SR document or Key Object Selection, with references and a signature.

    Parameters
    ----------
    path : Path
    out : binary file
        Open for writing, empty.
    signer, order, clock, new_uid
        See `sign.sign_file`. The profile has to be one of C.4 (A.4.a).
    find, verifier
        See `reference_edits`.

    Raises
    ------
    InvalidDataSet, ConfigurationError, ServiceUnavailable, OSError
        See `sign.sign_file` and `reference_edits`; nothing was written.

    References
    ----------
    PS3.15 A.4, C.4
    """
    if not order.profile.documents_only or order.location:
        raise ConfigurationError(
            f"found {order.profile.title}, wanted a profile of PS3.15 C.4, of the main data set "
            "(PS3.15 A.4.a)"
        )
    with open_file(path, tidy=True) as source:
        edits = reference_edits(source, find, verifier)
        with edited_source(source, edits) as document:
            made, edits = prepare(document, signer, order, clock=clock, new_uid=new_uid)
            out.write(header_for(path, source, made.transfer_syntax))
            for piece in signed_pieces(document, edits, made.transfer_syntax):
                out.write(piece)
    return replace(made, converted=made.transfer_syntax != source.transfer_syntax)


def found_in(folder: Path) -> Find:
    """Return what finds the instances in a folder, as they are there now."""
    known: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_file():
                known.setdefault(_instance_in(path), path)
        except (InvalidDataSet, OSError):
            continue  # no instance
    return known.get


def _instance_in(path: Path) -> str:
    """Return the SOP Instance UID in the data set of a file; its header may say another."""
    with path.open("rb") as file:
        encoding = encoding_of(read_header(file).text(TRANSFER_SYNTAX))
        beginning = file.read(_BEGINNING)
    if encoding.deflated:
        beginning = inflate(beginning, _BEGINNING).data
    value = find_values(beginning, [SOP_INSTANCE], encoding).get(SOP_INSTANCE, b"")
    return value.decode("ascii", "replace").strip("\0 ")


def mac_value(source: Source, tags: Collection[int], algorithm: MacAlgorithm) -> bytes:
    """Return the bare MAC over elements of a main data set: no signature's item goes in."""
    mac = Mac(frozenset(tags), new_hash(algorithm.hashlib))
    feed(source.reader, source.elements, [mac], frozenset(tags))
    return mac.hash.digest()


def _reference_to(evidence: Evidence, find: Find, verifier: Verifier | None) -> tuple[int, bytes]:
    """Return tag and encoding of a reference to an instance."""
    uid, where = evidence.sop_instance, evidence.nest.location
    path = find(uid) if uid else None
    if path is None:
        found = f"no instance {uid}" if uid else "no SOP Instance UID"
        raise InvalidDataSet(found, "every instance that is referred to", where, _CLAUSE)
    try:
        with open_file(path) as instance:
            facts = instance_facts(instance.reader, instance.elements, instance.transfer_syntax)
            if facts.sop_instance != uid:
                raise InvalidDataSet("another instance", "the one that is referred to")
            items = list(_signatures(instance, verifier)) if verifier is not None else []
            if items:
                return REFERENCED_SIGNATURES, encode(REFERENCED_SIGNATURES, b"SQ", b"".join(items))
            return REFERENCED_MACS, encode(REFERENCED_MACS, b"SQ", _mac(instance))
    except InvalidInput as exc:
        raise InvalidDataSet(
            f"for instance {uid}: {exc}", "an instance that can be referred to", where, _CLAUSE
        ) from exc


def _signatures(instance: Source, verifier: Verifier) -> Iterator[bytes]:
    """Yield an item for each signature of the main data set that can be relied on."""
    if not any(element.tag == DIGITAL_SIGNATURES for element in instance.elements):
        return
    reader = instance.reader
    level = read_level("", reader, instance.elements, Bounds(len(reader.buffer)))
    facts = instance_facts(reader, instance.elements, instance.transfer_syntax)
    reports = verifier.judge(facts, [level]).signatures
    for item, report in zip(level.signatures, reports, strict=False):
        if report.valid and not report.weak and _BINDING.intersection(report.profiles):
            yield encode_item(
                [
                    encode(SIGNATURE_UID, b"UI", item.uid.encode("ascii")),
                    encode(SIGNATURE, b"OB", item.signature),
                ]
            )


def _mac(instance: Source) -> bytes:
    """Return an item with a MAC over everything in an instance that can be signed."""
    tags = [e.tag for e in instance.elements if may_be_signed(instance.reader, e)]
    if not tags or len(set(tags)) != len(tags):
        raise InvalidDataSet("an element twice" if tags else "nothing that can be signed", "once")
    listed = b"".join(
        (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") for tag in tags
    )
    syntax = signed_syntax(instance.transfer_syntax)
    return encode_item(
        [
            encode(MAC_SYNTAX, b"UI", syntax.encode("ascii")),
            encode(MAC_ALGORITHM, b"CS", _ALGORITHM.term.encode("ascii")),
            encode(DATA_ELEMENTS_SIGNED, b"AT", listed),
            encode(MAC, b"OB", mac_value(instance, tags, _ALGORITHM)),
        ]
    )


def _refuse_if_signed(source: Source) -> None:
    """Refuse where a signature covers the evidence: it would not survive the references."""
    reader, document = source.reader, outermost(source.elements)
    signed = False
    if document.element(DIGITAL_SIGNATURES) is not None:
        macs = mac_parameters(reader, source.elements, 1 << 16)
        signed = any(tag in _EVIDENCE for mac in macs for tag in mac.tags)
    for tag in _EVIDENCE:
        element = document.element(tag)
        if element is not None and not signed:
            items = inside(reader, document, element)
            signed = any(
                True for item in items for _ in nests_with(DIGITAL_SIGNATURES, reader, item)
            )
    if signed:
        raise InvalidDataSet(
            "evidence that is signed without references", "references, or no signature yet",
            "(0040,A375), (0040,A385)", _CLAUSE,
        )  # fmt: skip


def _is_referenced(reader: Reader, one: Evidence) -> bool:
    return any(one.references(reader, tag) for tag in (REFERENCED_SIGNATURES, REFERENCED_MACS))


def _items(reader: Reader, nest: Nest, tag: int) -> Iterator[Nest]:
    """Yield the items of a sequence that may be absent."""
    found = [element for element in nest.elements if element.tag == tag]
    where = f"{nest.location}/" if nest.location else ""
    where += f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    if len(found) > 1:
        raise InvalidDataSet(f"{len(found)} of them", "one", where, "PS3.5 7.1")
    for element in found:
        if element.vr != b"SQ":
            vr = element.vr.decode("latin-1")
            raise InvalidDataSet(f"VR {vr}", "SQ", where, "PS3.3 C.17.2.1")
        yield from inside(reader, nest, element)


def _uid(reader: Reader, nest: Nest) -> str:
    element = nest.element(REFERENCED_INSTANCE)
    if element is None or element.end - element.value > 66:
        return ""
    value = bytes(reader.buffer[element.value : element.end]).rstrip(b" ")
    return value.rstrip(b"\0").decode("ascii") if _UID.fullmatch(value) else ""
