"""Compare what a document says of the instances it refers to with those instances.

For each reference in the evidence (`references.evidence_of`):

1. the instance is found, and its SOP Instance UID is the one referred to,
2. (0400,0402): a signature with that UID is in it, its value is the same, and it is valid,
3. (0400,0403): the MAC over the elements that it lists, computed anew, is the same.

Who says all this is the signer of the document: first verify that, and that the signature covers
(0040,A375) and (0040,A385), which every signature of C.4 does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from dicom_secure_node.elements.explicit import Reader
from dicom_secure_node.elements.syntax import encoding_of
from dicom_secure_node.errors import InvalidDataSet, InvalidInput
from dicom_secure_node.signatures.facts import InstanceFacts, instance_facts
from dicom_secure_node.signatures.items import (
    REFERENCED_MACS,
    REFERENCED_SIGNATURES,
    MacParameters,
    ReferencedMac,
    ReferencedSignature,
    referenced_mac,
    referenced_signature,
)
from dicom_secure_node.signatures.levels import levels_of
from dicom_secure_node.signatures.mac import may_be_signed
from dicom_secure_node.signatures.references import (
    MAX_REFERENCES,
    Evidence,
    Find,
    evidence_of,
    mac_value,
)
from dicom_secure_node.signatures.report import SignatureReport, tags_text
from dicom_secure_node.signatures.sign import signed_syntax
from dicom_secure_node.signatures.source import Source, open_file
from dicom_secure_node.signatures.verify import Verifier
from dicom_secure_node.spec.signatures import MAC_ALGORITHMS, MacAlgorithm

MAX_BYTES = 256 << 30  # hashed for one document
_MAX_UID_SHOWN = 64

Kind = Literal["signature", "mac", "none"]


@dataclass(frozen=True)
class ReferenceReport:
    """One reference of a document; or one item of its evidence that has none.

    Attributes
    ----------
    location : str
        Of the Referenced SOP Sequence item.
    sop_instance : str
        UID referred to; empty where the item has none.
    kind : str
        ``signature`` for an item of (0400,0402), ``mac`` for one of (0400,0403), or ``none``.
    found : bool
        The instance was found and could be read.
    same : bool
        It is what the document's signer referred to.
    reason : str
        Why it is not the same, or cannot be told to be; empty when it is.
    signature_uid : str
        Digital Signature UID referred to.
    signature : SignatureReport or None
        On the signature in the instance.
    remarks : tuple of str
        What is odd and did not decide anything.
    """

    location: str
    sop_instance: str
    kind: Kind
    found: bool = False
    same: bool = False
    reason: str = ""
    signature_uid: str = ""
    signature: SignatureReport | None = field(default=None, repr=False)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class DocumentReport:
    """All references of one document.

    Attributes
    ----------
    references : tuple of ReferenceReport
        In the order of the document.
    problem : str
        Why the evidence could not be read to its end; empty when it could.
    not_looked_at : int
        Items of the evidence beyond the bound.
    """

    references: tuple[ReferenceReport, ...] = ()
    problem: str = ""
    not_looked_at: int = 0

    @property
    def complete(self) -> bool:
        """Whether every item of the evidence carries a reference (PS3.15 A.4.b)."""
        read = not self.problem and not self.not_looked_at
        return read and all(one.kind != "none" for one in self.references)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the document does not bind what it refers to; empty when it does."""
        found = [self.problem] if self.problem else []
        if self.not_looked_at:
            found.append(f"{self.not_looked_at} references too many were not looked at")
        found += [f"{one.location}: {one.reason}" for one in self.references if not one.same]
        return tuple(found)


class _Reference(NamedTuple):
    """A reference before it is compared."""

    report: ReferenceReport
    says: ReferencedSignature | ReferencedMac | None = None


def check_file(path: Path, find: Find, verifier: Verifier) -> DocumentReport:
    """Return the report on the references of a Part 10 file; see `check_references`."""
    try:
        with open_file(path) as source:
            return check_references(source, find, verifier)
    except InvalidInput as exc:
        return DocumentReport(problem=str(exc))
    except OSError as exc:
        return DocumentReport(problem=_unreadable(exc))


def check_references(
    source: Source,
    find: Find,
    verifier: Verifier,
    *,
    max_references: int = MAX_REFERENCES,
    max_bytes: int = MAX_BYTES,
) -> DocumentReport:
    """Return the report on the references of a document. Nothing in any instance raises.

    Parameters
    ----------
    source : Source
        The document.
    find : callable
        See `references.Find`. Asked once for each instance.
    verifier : Verifier
        Says whether a signature that is referred to is valid.
    max_references : int
        Items of the evidence, and references, that are looked at.
    max_bytes : int
        What may be hashed, all instances together. References beyond are reported as such.
    """
    references: list[_Reference] = []
    problem, left_out = "", 0
    try:
        for evidence in evidence_of(source):
            found = _references(source.reader, evidence)
            references += islice(found, max_references - len(references))
            left_out += next(found, None) is not None
    except InvalidDataSet as exc:
        problem = str(exc)
    # Instance by instance, so that each is opened once and none is remembered.
    places: dict[str, list[int]] = {}
    for place, (report, says) in enumerate(references):
        if says is not None:
            places.setdefault(report.sop_instance, []).append(place)
    done = [reference.report for reference in references]
    budget = _Budget(max_bytes)
    for uid, here in places.items():
        some = [references[place] for place in here]
        for place, report in zip(here, _compared(uid, some, find, verifier, budget), strict=True):
            done[place] = report
    return DocumentReport(tuple(done), problem, left_out)


class _Budget:
    """What may still be hashed."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def spend(self, count: int) -> None:
        """Take note of bytes that were read or hashed."""
        self._left -= count

    @property
    def refusal(self) -> str:
        """Why nothing more is looked at; empty while something is left."""
        return "" if self._left > 0 else f"not looked at: more than {self._most} bytes to hash"


def _references(reader: Reader, evidence: Evidence) -> Iterator[_Reference]:
    """Yield the references of one item of the evidence, or that there is none."""
    blank = ReferenceReport(evidence.nest.location, evidence.sop_instance, "none")
    count = 0
    for tag in (REFERENCED_SIGNATURES, REFERENCED_MACS):
        element = evidence.nest.element(tag)
        if element is None or element.vr != b"SQ":
            continue
        items = reader.items(element, evidence.nest.depth + 1)
        count += len(items)
        for item in items:
            if tag == REFERENCED_SIGNATURES:
                signature = referenced_signature(reader, item)
                report = replace(
                    blank, kind="signature", signature_uid=signature.uid, reason=signature.problem
                )
                yield _Reference(report, None if signature.problem else signature)
                continue
            mac = referenced_mac(reader, item)
            problem = mac.parameters.problem
            if len(items) > 1:
                problem = f"{len(items)} MACs, wanted one (PS3.3 Table C.17-3a)"
            report = replace(blank, kind="mac", reason=problem)
            yield _Reference(report, None if problem else mac)
    if not count:
        yield _Reference(replace(blank, reason="neither a signature nor a MAC (PS3.15 A.4.b)"))


def _compared(
    uid: str, references: list[_Reference], find: Find, verifier: Verifier, budget: _Budget
) -> list[ReferenceReport]:
    """Return the reports on references to one instance."""
    reason = budget.refusal
    try:
        path = find(uid) if uid and not reason else None
        if path is not None:
            with open_file(path) as instance:
                facts = instance_facts(instance.reader, instance.elements, instance.transfer_syntax)
                if facts.sop_instance == uid:
                    compared = _Instance(instance, facts, verifier, budget)
                    return [compared.with_(*reference) for reference in references]
                reason = "what is there is another instance"
        elif not reason:
            reason = "the instance is not there" if uid else "no SOP Instance UID"
    except InvalidInput as exc:
        reason = f"the instance cannot be read: {exc}"
    except OSError as exc:
        reason = f"the instance {_unreadable(exc)}"
    return [replace(report, reason=reason) for report, _ in references]


class _Instance:
    """An open instance, compared with references to it."""

    def __init__(
        self, source: Source, facts: InstanceFacts, verifier: Verifier, budget: _Budget
    ) -> None:
        self._source = source
        self._facts = facts
        self._verifier = verifier
        self._budget = budget
        self._size = len(source.reader.buffer)
        self._present = [element.tag for element in source.elements]
        self._signable = {e.tag for e in source.elements if may_be_signed(source.reader, e)}
        self._signatures: dict[str, list[tuple[bytes, SignatureReport]]] | None = None
        self._macs: dict[tuple[frozenset[int], str], bytes] = {}
        budget.spend(self._size)

    def with_(
        self, report: ReferenceReport, says: ReferencedSignature | ReferencedMac | None
    ) -> ReferenceReport:
        """Return the report on one reference to the instance."""
        report = replace(report, found=True)
        if isinstance(says, ReferencedSignature):
            return self._signature(report, says)
        assert says is not None
        return self._mac(report, says.parameters, says.mac)

    def _signature(self, report: ReferenceReport, says: ReferencedSignature) -> ReferenceReport:
        if self._signatures is None:
            self._signatures = self._read_signatures()
        there = self._signatures.get(says.uid, [])
        if not there:
            return replace(report, reason="the instance has no such signature")
        # UIDs are unique; where they are not, the value tells which one is meant.
        same = [found for value, found in there if _even(value) == _even(says.signature)]
        if not same:
            return replace(report, reason="the signature is another one", signature=there[0][1])
        found = same[0]
        if not found.valid:
            return replace(
                report, reason=f"the signature is not valid: {found.words}", signature=found
            )
        remarks = tuple(f"weak: {what}" for what in found.weak)
        if found.location:
            remarks += (f"the signature covers {found.location} only",)
        return replace(report, same=True, signature=found, remarks=remarks)

    def _read_signatures(self) -> dict[str, list[tuple[bytes, SignatureReport]]]:
        known: dict[str, list[tuple[bytes, SignatureReport]]] = {}
        for level in levels_of(self._source):  # bounded by itself
            self._budget.spend(self._size * len(level.digests))
            reports = self._verifier.judge(self._facts, [level]).signatures
            for item, found in zip(level.signatures, reports, strict=False):
                known.setdefault(item.uid, []).append((item.signature, found))
        return known

    def _mac(
        self, report: ReferenceReport, parameters: MacParameters, mac: bytes
    ) -> ReferenceReport:
        algorithm = MAC_ALGORITHMS.get(parameters.algorithm)
        if algorithm is None:
            found = f"the MAC is by {parameters.algorithm[:16]!r}"
            return replace(report, reason=f"{found}, wanted one of {' '.join(MAC_ALGORITHMS)}")
        encoding = encoding_of(parameters.syntax)
        if not (encoding.explicit and encoding.little):
            found = f"the MAC is over transfer syntax {parameters.syntax[:_MAX_UID_SHOWN]}"
            wanted = "wanted explicit VR little endian (PS3.3 C.17.2.1)"
            return replace(report, reason=f"{found}, {wanted}")
        if len(set(self._present)) != len(self._present):
            return replace(report, reason="the instance has an element twice (PS3.5 7.1)")
        tags = self._signable.intersection(parameters.tags)
        report = replace(report, remarks=tuple(self._oddities(parameters.tags, algorithm)))
        if not tags:
            return replace(report, reason="the MAC covers nothing that is there")
        there = self._value(frozenset(tags), algorithm)
        if there is None:
            return replace(report, reason=self._budget.refusal)
        if there == mac:
            return replace(report, same=True)
        reason = "the instance is not the one the MAC was made of"
        if parameters.syntax != signed_syntax(self._facts.transfer_syntax):
            reason += f", or it was encoded anew: {self._facts.transfer_syntax}"
        return replace(report, reason=reason)

    def _oddities(self, listed: Collection[int], algorithm: MacAlgorithm) -> Iterator[str]:
        missing = sorted(set(listed).difference(self._present))
        unsignable = sorted(set(listed).intersection(self._present) - self._signable)
        if missing:
            yield f"lists elements that are not there: {tags_text(missing)}"
        if unsignable:
            yield f"lists what cannot be signed: {tags_text(unsignable)}"
        if not algorithm.base:
            yield f"{algorithm.term} is none of the six of PS3.15 C.4"
        if algorithm.weak:
            yield f"{algorithm.term} can be forged"

    def _value(self, tags: frozenset[int], algorithm: MacAlgorithm) -> bytes | None:
        """Return the MAC over the elements of these tags; None where that is too much work."""
        key = (tags, algorithm.term)
        if key not in self._macs:
            if self._budget.refusal:
                return None
            self._budget.spend(self._size)
            self._macs[key] = mac_value(self._source, tags, algorithm)
        return self._macs[key]


def _even(value: bytes) -> bytes:
    """Return an OB value with the pad byte it has when encoded."""
    return value + b"\0" * (len(value) % 2)


def _unreadable(exc: OSError) -> str:
    return f"cannot be read: {exc.strerror or type(exc).__name__}"
