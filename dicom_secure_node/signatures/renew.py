"""Send a signed instance on in another encoding (PS3.15 A.2.c).

Who trims padding, writes numbers differently or compresses breaks the signatures of what he did
not mean to change. So, before it leaves:

1. signatures that do not hold over the new encoding are dropped (A.2.c.1),
2. where one was dropped that was valid when the instance came in, one new signature is made, over
   the elements that were covered by valid signatures then, as far as they are there (A.2.c.2).

What nobody had signed, and what an invalid signature covered, is not signed anew.

Whoever calls this vouches that only the encoding differs: of the values, only the SOP Instance
UID is compared, since to tell a permitted variation from a change takes the meaning of each. Who
keeps the bits as they came (A.3) needs none of it.

A signature in a sequence item is dropped like any other and not made anew: the new one covers the
whole sequence, if a valid one did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pydicom.uid import generate_uid

from dicom_secure_node.errors import InvalidDataSet
from dicom_secure_node.pki.signers import Signer
from dicom_secure_node.signatures.copying import edited_source, header_for
from dicom_secure_node.signatures.facts import instance_facts
from dicom_secure_node.signatures.items import SignatureItem
from dicom_secure_node.signatures.levels import levels_of
from dicom_secure_node.signatures.mac import Variant, may_be_signed
from dicom_secure_node.signatures.profiles import BASE
from dicom_secure_node.signatures.report import InstanceReport, SignatureReport
from dicom_secure_node.signatures.sign import Made, Order, prepare, signed_pieces, signed_syntax
from dicom_secure_node.signatures.source import Source, open_data_set, open_file
from dicom_secure_node.signatures.strip import copy, strip_edits
from dicom_secure_node.signatures.verify import Verifier

_VARIANTS = frozenset(f"holds only {variant.value}" for variant in Variant)


@dataclass(frozen=True)
class Renewed:
    """What became of the signatures of an instance that is sent on.

    Attributes
    ----------
    kept : tuple of SignatureReport
        They hold over the new encoding.
    dropped : tuple of SignatureReport
        They do not; as found in the new encoding.
    made : Made or None
        The new signature.
    why_none : str
        Why there is none; empty when there is one.
    invalid : tuple of SignatureReport
        Those that were not valid when the instance came in. One that was broken is among the
        dropped ones: whoever does not refuse such an instance should at least say so.
    left_out : tuple of int
        Tags that were covered by a valid signature, and cannot be signed in the new encoding.
    transfer_syntax : str
        Of what was written.
    """

    kept: tuple[SignatureReport, ...]
    dropped: tuple[SignatureReport, ...]
    made: Made | None
    why_none: str
    invalid: tuple[SignatureReport, ...]
    left_out: tuple[int, ...]
    transfer_syntax: str


def renew(
    received: Path,
    reencoded: Path,
    out: BinaryIO,
    signer: Signer,
    verifier: Verifier,
    *,
    report: InstanceReport | None = None,
    order: Order | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    new_uid: Callable[[], str] = generate_uid,
) -> Renewed:
    """Write a re-encoded Part 10 file with signatures that hold.

    Parameters
    ----------
    received : Path
        The instance as it came in. Not read where there is a `report`.
    reencoded : Path
        The same data set, encoded anew.
    out : binary file
        Open for writing, empty.
    signer : Signer
        For the new signature.
    verifier : Verifier
        Says what is valid.
    report : InstanceReport, optional
        On the instance as it came in, made then.
    order : Order, optional
        Algorithm, purpose and timestamp authority of the new signature; its profile is C.1, and
        the elements are not for the order to choose.
    clock, new_uid : callable
        See `sign.sign_file`.

    Raises
    ------
    InvalidDataSet
        One of the files cannot be read, or they are two instances.
    ConfigurationError, ServiceUnavailable
        See `sign.sign_file`; nothing was written.
    OSError

    References
    ----------
    PS3.15 A.2.c
    """
    if report is None:
        report = verifier.verify_file(received)
    with (
        open_file(reencoded) as source,
        _renewing(report, source, signer, verifier, order or Order(), clock, new_uid) as done,
    ):
        renewed, pieces = done
        if pieces is None:
            copy(reencoded, out)
            return renewed
        out.write(header_for(reencoded, source, renewed.transfer_syntax))
        for piece in pieces:
            out.write(piece)
        return renewed


def renew_data_set(
    report: InstanceReport,
    reencoded: BinaryIO,
    transfer_syntax: str,
    out: BinaryIO,
    signer: Signer,
    verifier: Verifier,
    *,
    order: Order | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    new_uid: Callable[[], str] = generate_uid,
) -> Renewed:
    """Write a re-encoded data set, without File Meta Information, with signatures that hold.

    Parameters
    ----------
    report : InstanceReport
        On the instance as it came in.
    reencoded : binary file
        At the first byte of the data set; seekable.
    transfer_syntax : str
        Of `reencoded`. What is written is in `Renewed.transfer_syntax`.
    out, signer, verifier, order, clock, new_uid
        See `renew`, also for what is raised.
    """
    start = reencoded.tell()
    with (
        open_data_set(reencoded, transfer_syntax) as source,
        _renewing(report, source, signer, verifier, order or Order(), clock, new_uid) as done,
    ):
        renewed, pieces = done
        if pieces is None:
            reencoded.seek(start)
            pieces = iter(lambda: reencoded.read(1 << 20), b"")
        for piece in pieces:
            out.write(piece)
        return renewed


@contextmanager
def _renewing(
    report: InstanceReport,
    source: Source,
    signer: Signer,
    verifier: Verifier,
    order: Order,
    clock: Callable[[], datetime],
    new_uid: Callable[[], str],
) -> Iterator[tuple[Renewed, Iterable[bytes | memoryview] | None]]:
    """Give what becomes of the signatures, and the new data set; None where it is the same."""
    if report.problem:
        raise InvalidDataSet(report.problem, "the instance as it came in")
    facts = instance_facts(source.reader, source.elements, source.transfer_syntax)
    if not facts.sop_instance or facts.sop_instance != report.sop_instance:
        raise InvalidDataSet(
            "another instance", "the same one, encoded anew", "(0008,0018)", "PS3.15 A.2.c"
        )
    before = {one.uid: one for one in report.signatures}
    kept, dropped = [], []
    good: set[tuple[str, int]] = set()
    for level in levels_of(source):
        for place, one in enumerate(verifier.judge(facts, [level]).signatures):
            if _holds(one, before.get(one.uid)):
                kept.append(one)
                good.add((one.location, place))
            else:
                dropped.append(one)

    def goes(where: str, place: int, _item: SignatureItem) -> bool:
        # Also what was beyond the bound and not looked at.
        return (where, place) not in good

    edits = strip_edits(source, goes)  # (1)
    valid = [one for one in report.signatures if one.valid and not one.location]
    renewed = Renewed(
        kept=tuple(kept),
        dropped=tuple(dropped),
        made=None,
        why_none=_why_none(report, valid, kept),
        invalid=tuple(one for one in report.signatures if not one.valid),
        left_out=(),
        transfer_syntax=source.transfer_syntax,
    )
    if renewed.why_none and not edits:
        yield renewed, None
        return
    syntax = signed_syntax(source.transfer_syntax)
    renewed = replace(renewed, transfer_syntax=syntax)
    if renewed.why_none:
        yield renewed, signed_pieces(source, edits, syntax)
        return
    with edited_source(source, edits) as stripped:  # (2)
        reader = stripped.reader
        signable = {e.tag for e in stripped.elements if may_be_signed(reader, e)}
        covered = {tag for one in valid for tag in one.coverage.signed}
        renewed = replace(renewed, left_out=tuple(sorted(covered - signable)))
        if not covered & signable:
            why = "nothing that was verified when it came in can be signed now"
            yield replace(renewed, why_none=why), signed_pieces(stripped, [], syntax)
            return
        order = replace(
            order, profile=BASE, extra=(), without=tuple(sorted(signable - covered)), location=""
        )
        made, edits = prepare(stripped, signer, order, clock=clock, new_uid=new_uid)
        yield replace(renewed, made=made), signed_pieces(stripped, edits, syntax)


def _holds(one: SignatureReport, before: SignatureReport | None) -> bool:
    """Tell whether a signature stays: it verifies, whoever made it, and no less than before.

    One that holds only as some products compute it is in doubt, unless it came in like that.
    """
    if one.problem or not (one.genuine and one.intact):
        return False
    doubts = _VARIANTS.intersection(one.remarks)
    return not doubts or (before is not None and doubts <= set(before.remarks))


def _why_none(
    report: InstanceReport, valid: list[SignatureReport], kept: list[SignatureReport]
) -> str:
    """Return why no new signature is called for; nothing where one is."""
    if not report.signatures:
        return "the instance had no signature"
    if not valid:
        return "nothing could be verified when it came in"
    if {one.uid for one in valid} <= {one.uid for one in kept if not one.location}:
        return "every valid signature still holds"
    return ""
