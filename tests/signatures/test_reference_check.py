"""What a document says of instances is compared with the instances."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from dicom_secure_node.signatures.profiles import SR
from dicom_secure_node.signatures.reference_check import (
    DocumentReport,
    ReferenceReport,
    check_file,
    check_references,
)
from dicom_secure_node.signatures.references import found_in, mac_value, sign_document
from dicom_secure_node.signatures.sign import Order, sign_file
from dicom_secure_node.signatures.source import open_file
from dicom_secure_node.spec.signatures import ASTM_SIGPURPOSE, MAC_ALGORITHMS, Purpose
from tests.signatures.documents import document, items_of
from tests.signatures.signing_parts import CT, Site

MR = Path(str(get_testdata_file("MR_small.dcm")))
SIGNED, UNSIGNED = 0, 1  # in the evidence: a signed CT, an MR that is not


@pytest.fixture(scope="module")
def modality(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("modality"), "modality")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, modality: Site) -> Path:
    """A folder with a document and an archive of what it refers to."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "archive").mkdir()
    modality.sign(CT, folder / "archive" / "ct.dcm")
    (folder / "archive" / "mr.dcm").write_bytes(MR.read_bytes())
    plain = document(folder / "plain.dcm", [CT, MR])
    order = Order(SR, purpose=Purpose("1", ASTM_SIGPURPOSE))
    with (folder / "report.dcm").open("wb") as out:
        sign_document(
            plain, out, modality.signer, order, found_in(folder / "archive"),
            verifier=modality.verifier,
        )  # fmt: skip
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it of the test's own."""
    (tmp_path / "archive").mkdir()
    for name in ("report.dcm", "archive/ct.dcm", "archive/mr.dcm"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    return tmp_path


def check(folder: Path, modality: Site) -> DocumentReport:
    return check_file(folder / "report.dcm", found_in(folder / "archive"), modality.verifier)


def change(path: Path, edit: Callable[[Dataset], object]) -> None:
    ds = pydicom.dcmread(path)
    edit(ds)
    ds.save_as(path)


def test_a_document_binds_what_it_refers_to(folder: Path, modality: Site) -> None:
    report = check(folder, modality)
    assert report.reasons == ()
    assert report.complete
    signature, mac = report.references
    assert (signature.kind, signature.found, signature.same) == ("signature", True, True)
    assert signature.signature is not None
    assert signature.signature.signer == "CN=modality,O=Test Hospital"
    assert signature.signature_uid == signature.signature.uid
    assert (mac.kind, mac.found, mac.same, mac.remarks) == ("mac", True, True, ())
    assert mac.location == "(0040,A375)[2]/(0008,1115)[1]/(0008,1199)[1]"


def replaced(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "archive" / name
        content = path.read_bytes()
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))

    return spoil


def sign_again(folder: Path) -> None:
    Site(folder / "else", "else").sign(CT, folder / "archive" / "ct.dcm")


def re_sign(folder: Path) -> None:
    """Another signature under the UID that is referred to."""
    path = folder / "archive" / "ct.dcm"
    uid = str(pydicom.dcmread(path).DigitalSignaturesSequence[0].DigitalSignatureUID)
    other = Site(folder / "else", "else")
    with path.open("wb") as out:
        sign_file(CT, out, other.signer, new_uid=lambda: uid)


def compress(folder: Path) -> None:
    change(
        folder / "archive" / "mr.dcm",
        lambda ds: ds.compress(RLELossless, generate_instance_uid=False),
    )


SPOILT: dict[str, tuple[int, Callable[[Path], object], bool, str]] = {
    "the signed instance is gone": (
        SIGNED, lambda f: (f / "archive" / "ct.dcm").unlink(), False, "the instance is not there",
    ),
    "the other instance is gone": (
        UNSIGNED, lambda f: (f / "archive" / "mr.dcm").unlink(), False, "the instance is not there",
    ),
    "the signed instance was changed": (
        SIGNED, replaced("ct.dcm", b"Samples^CT1", b"Samples^CT2"), True,
        "the signature is not valid: signed elements were changed",
    ),
    "the other instance was changed": (
        UNSIGNED, replaced("mr.dcm", b"Samples^MR1", b"Samples^MR2"), True,
        "the instance is not the one the MAC was made of",
    ),
    "the signature was taken out": (
        SIGNED, lambda f: (f / "archive" / "ct.dcm").write_bytes(CT.read_bytes()), True,
        "the instance has no such signature",
    ),
    "somebody else signed the instance anew": (
        SIGNED, sign_again, True, "the instance has no such signature",
    ),
    "somebody else signed the instance anew, with the same UID": (
        SIGNED, re_sign, True, "the signature is another one",
    ),
    "the other instance was compressed": (
        UNSIGNED, compress, True,
        "the instance is not the one the MAC was made of, or it was encoded anew: "
        "1.2.840.10008.1.2.5",
    ),
    "the other instance was cut short": (
        UNSIGNED, lambda f: (f / "archive" / "mr.dcm").write_bytes(MR.read_bytes()[:-1000]), False,
        "the instance cannot be read: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("which", "spoil", "found", "reason"), SPOILT.values(), ids=SPOILT)
def test_what_became_of_an_instance(
    which: int,
    spoil: Callable[[Path], object],
    found: bool,
    reason: str,
    folder: Path,
    modality: Site,
) -> None:
    spoil(folder)
    report = check(folder, modality)
    one, other = report.references[which], report.references[1 - which]
    assert (one.found, one.same) == (found, False)
    assert one.reason.startswith(reason)
    assert other.same
    assert report.complete, "A.4.b is about the document"
    assert len(report.reasons) == 1


def only(item: Dataset, keyword: str) -> Dataset:
    return getattr(item, keyword)[0]  # type: ignore[no-any-return]


def mac_of(item: Dataset) -> Dataset:
    return only(item, "ReferencedSOPInstanceMACSequence")


def of_signature(item: Dataset) -> Dataset:
    return only(item, "ReferencedDigitalSignatureSequence")


SAYS: dict[str, tuple[int, Callable[[Dataset], object], str]] = {
    # What the document says, whether its own signature holds or not.
    "an unknown algorithm": (
        UNSIGNED, lambda i: setattr(mac_of(i), "MACAlgorithm", "ROT13"), "the MAC is by 'ROT13'",
    ),
    "an implicit transfer syntax": (
        UNSIGNED,
        lambda i: setattr(mac_of(i), "MACCalculationTransferSyntaxUID", "1.2.840.10008.1.2"),
        "the MAC is over transfer syntax 1.2.840.10008.1.2, wanted explicit",
    ),
    "a MAC of another length": (
        UNSIGNED, lambda i: setattr(mac_of(i), "MAC", b"\0" * 20), "the instance is not the one",
    ),
    "a MAC longer than any": (
        UNSIGNED, lambda i: setattr(mac_of(i), "MAC", b"\0" * 66),
        "(0400,0404) MAC: found 66 bytes, wanted 1 to 64",
    ),
    "no MAC": (
        UNSIGNED, lambda i: delattr(mac_of(i), "MAC"),
        "(0400,0404) MAC: found nothing, wanted a value (PS3.3 Table C.17-3a)",
    ),
    "tags of what is not there": (
        UNSIGNED, lambda i: setattr(mac_of(i), "DataElementsSigned", [0x00080001, 0x00700001]),
        "the MAC covers nothing that is there",
    ),
    "two MACs": (
        UNSIGNED,
        lambda i: i.ReferencedSOPInstanceMACSequence.append(mac_of(i)),
        "2 MACs, wanted one",
    ),
    "no SOP Instance UID": (
        UNSIGNED, lambda i: delattr(i, "ReferencedSOPInstanceUID"), "no SOP Instance UID",
    ),
    "a path for a SOP Instance UID": (
        UNSIGNED, lambda i: i.add_new(0x00081155, "UI", "../../etc"), "no SOP Instance UID",
    ),
    "another signature value": (
        SIGNED, lambda i: setattr(of_signature(i), "Signature", b"\1" * 256),
        "the signature is another one",
    ),
    "no signature value": (
        SIGNED, lambda i: delattr(of_signature(i), "Signature"),
        "(0400,0120) Signature: found nothing",
    ),
    "no signature UID": (
        SIGNED, lambda i: delattr(of_signature(i), "DigitalSignatureUID"),
        "(0400,0100) Digital Signature UID: found nothing",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize(("which", "edit", "reason"), SAYS.values(), ids=SAYS)
def test_what_a_document_may_say(
    which: int, edit: Callable[[Dataset], object], reason: str, folder: Path, modality: Site
) -> None:
    change(folder / "report.dcm", lambda ds: edit(items_of(ds)[which]))
    report = check(folder, modality)
    wrong = [one for one in report.references if not one.same]
    assert wrong
    assert all(one.reason.startswith(reason) for one in wrong), wrong
    assert report.complete
    assert len(report.references) - len(wrong) == 1


def test_what_is_odd_about_a_MAC_is_said(folder: Path, modality: Site, made: Path) -> None:
    # The list is no part of the MAC: absent and nested tags and group lengths change nothing.
    more = [0x00080001, 0x00200000, 0x00400275, 0x00700001]

    def edit(ds: Dataset) -> None:
        mac = mac_of(items_of(ds)[UNSIGNED])
        mac.DataElementsSigned = [*more, *mac.DataElementsSigned]

    change(folder / "report.dcm", edit)
    one = check(folder, modality).references[UNSIGNED]
    assert one.same
    assert len(one.remarks) == 1
    assert one.remarks[0].startswith("lists elements that are not there: (0008,0001)")


@pytest.mark.parametrize(
    ("algorithm", "remarks"),
    [
        ("MD5", ("MD5 can be forged",)),
        ("SHA512", ()),
        ("SHA3_256", ("SHA3_256 is none of the six of PS3.15 C.4",)),
    ],
)
def test_every_algorithm_is_computed(
    algorithm: str, remarks: tuple[str, ...], folder: Path, modality: Site
) -> None:
    def edit(ds: Dataset) -> None:
        mac = mac_of(items_of(ds)[UNSIGNED])
        with open_file(MR) as source:
            tags = [int(tag) for tag in mac.DataElementsSigned]
            mac.MAC = mac_value(source, tags, MAC_ALGORITHMS[algorithm])
        mac.MACAlgorithm = algorithm

    change(folder / "report.dcm", edit)
    one = check(folder, modality).references[UNSIGNED]
    assert (one.same, one.remarks) == (True, remarks)


def test_A4b_an_item_without_reference_is_named(folder: Path, modality: Site) -> None:
    def edit(ds: Dataset) -> None:
        del items_of(ds)[UNSIGNED].ReferencedSOPInstanceMACSequence

    change(folder / "report.dcm", edit)
    report = check(folder, modality)
    assert not report.complete
    assert report.references[UNSIGNED] == ReferenceReport(
        "(0040,A375)[2]/(0008,1115)[1]/(0008,1199)[1]",
        str(pydicom.dcmread(MR).SOPInstanceUID),
        "none",
        reason="neither a signature nor a MAC (PS3.15 A.4.b)",
    )


def test_both_references_of_one_item_are_compared(folder: Path, modality: Site) -> None:
    def edit(ds: Dataset) -> None:
        signed, unsigned = items_of(ds)
        signed.ReferencedSOPInstanceMACSequence = unsigned.ReferencedSOPInstanceMACSequence

    change(folder / "report.dcm", edit)
    report = check(folder, modality)
    assert [(one.kind, one.same) for one in report.references] == [
        ("signature", True),
        ("mac", False),
        ("mac", True),
    ]


def test_a_signer_nobody_trusts_is_reported(folder: Path, modality: Site, tmp_path: Path) -> None:
    # His signature is in the instance, and the document says so: whom to trust decides.
    stranger = Site(tmp_path / "stranger", "stranger")
    ct = folder / "archive" / "ct.dcm"
    uid = str(pydicom.dcmread(ct).DigitalSignaturesSequence[0].DigitalSignatureUID)
    with ct.open("wb") as out:
        sign_file(CT, out, stranger.signer, new_uid=lambda: uid)
    value = pydicom.dcmread(ct).DigitalSignaturesSequence[0].Signature
    change(
        folder / "report.dcm",
        lambda ds: setattr(of_signature(items_of(ds)[SIGNED]), "Signature", value),
    )
    one = check(folder, modality).references[SIGNED]
    assert one.signature is not None
    assert one.same == one.signature.trusted
    assert one.reason == ("" if one.same else f"the signature is not valid: {one.signature.words}")


def test_work_is_bounded(folder: Path, modality: Site) -> None:
    find = found_in(folder / "archive")
    with open_file(folder / "report.dcm") as source:
        few = check_references(source, find, modality.verifier, max_references=1)
        assert (len(few.references), few.not_looked_at, few.complete) == (1, 1, False)
        assert few.reasons == ("1 references too many were not looked at",)
        little = check_references(source, find, modality.verifier, max_bytes=1000)
    assert [one.reason for one in little.references] == [
        "",
        "not looked at: more than 1000 bytes to hash",
    ]

    def edit(ds: Dataset) -> None:
        # One instance, and a different MAC in each reference to it.
        item = items_of(ds)[UNSIGNED]
        series = ds.CurrentRequestedProcedureEvidenceSequence[1].ReferencedSeriesSequence[0]
        for count in range(2, 20):
            copy = Dataset.from_json(item.to_json())
            mac_of(copy).DataElementsSigned = list(mac_of(copy).DataElementsSigned)[:-count]
            series.ReferencedSOPSequence.append(copy)

    change(folder / "report.dcm", edit)
    size = (folder / "archive" / "ct.dcm").stat().st_size + 4 * MR.stat().st_size
    with open_file(folder / "report.dcm") as source:
        some = check_references(source, find, modality.verifier, max_bytes=size)
    refused = [one for one in some.references if one.reason.startswith("not looked at")]
    assert 10 < len(refused) < len(some.references)


PROBLEMS: dict[str, tuple[bytes, bytes, str]] = {
    "evidence of VR UN": (b"\x40\0\x75\xa3SQ", b"\x40\0\x75\xa3UN", "found VR UN, wanted SQ"),
    "a sequence longer than its item": (
        b"\x08\0\x99\x11SQ\0\0", b"\x08\0\x99\x11SQ\0\0\xff\xff", "(0008,1199)",
    ),
    "no DICOM": (b"DICM", b"MCID", "found no DICM"),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "problem"), PROBLEMS.values(), ids=PROBLEMS)
def test_nothing_in_a_document_raises(
    old: bytes, new: bytes, problem: str, folder: Path, modality: Site
) -> None:
    path = folder / "report.dcm"
    content = path.read_bytes()
    at = content.index(old)
    path.write_bytes(content[:at] + new + content[at + len(new) :])
    report = check(folder, modality)
    assert problem in report.problem
    assert not report.complete
    assert report.reasons[0] == report.problem


def test_a_document_that_is_not_there_is_a_problem(tmp_path: Path, modality: Site) -> None:
    report = check_file(tmp_path / "no.dcm", {}.get, modality.verifier)
    assert report.problem == "cannot be read: No such file or directory"
