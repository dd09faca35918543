"""A signed document binds the instances it refers to (PS3.15 A.4, PS3.3 C.17.2.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_secure_node.elements.part10 import FileMeta, encode_header
from dicom_secure_node.errors import ConfigurationError, InvalidDataSet
from dicom_secure_node.signatures.copying import write_file
from dicom_secure_node.signatures.policy import SignaturePolicy
from dicom_secure_node.signatures.profiles import BASE, CREATOR, SR, SR_VERIFICATION, Profile
from dicom_secure_node.signatures.reference_check import DocumentReport, check_file
from dicom_secure_node.signatures.references import (
    found_in,
    mac_value,
    missing_references,
    reference_edits,
    sign_document,
)
from dicom_secure_node.signatures.sign import Made, Order
from dicom_secure_node.signatures.source import open_file
from dicom_secure_node.spec.signatures import ASTM_SIGPURPOSE, MAC_ALGORITHMS, VERIFICATION, Purpose
from tests.parts import run
from tests.signatures.documents import (
    COMPREHENSIVE_SR,
    KEY_OBJECTS,
    document,
    items_of,
    references,
)
from tests.signatures.signing_parts import CT, Site

MR = Path(str(get_testdata_file("MR_small.dcm")))
JPEG = Path(str(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm")))
RLE = Path(str(get_testdata_file("MR_small_RLE.dcm")))
IMPLICIT = Path(str(get_testdata_file("rtplan.dcm")))
BIG_ENDIAN = Path(str(get_testdata_file("MR_small_bigendian.dcm")))

AUTHOR, SOURCE = Purpose("1", ASTM_SIGPURPOSE), Purpose("14", ASTM_SIGPURPOSE)


def uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("reader"), "reader")


@pytest.fixture(scope="module")
def modality(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("modality"), "modality")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, modality: Site) -> Path:
    """A folder with signed instances (CT, JPEG) and unsigned ones."""
    folder = tmp_path_factory.mktemp("archive")
    modality.sign(CT, folder / "ct.dcm")
    modality.sign(JPEG, folder / "jpeg.dcm")
    for path in (MR, IMPLICIT):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "notes.txt").write_text("no DICOM")
    return folder


SignedDocument = Callable[..., tuple[Path, Made]]


@pytest.fixture
def signed(tmp_path: Path, site: Site, modality: Site, archive: Path) -> SignedDocument:
    def make(
        path: Path, profile: Profile = SR, purpose: Purpose = AUTHOR, trusting: bool = True
    ) -> tuple[Path, Made]:
        target = tmp_path / "signed.dcm"
        with target.open("wb") as out:
            made = sign_document(
                path, out, site.signer, Order(profile, purpose=purpose), found_in(archive),
                verifier=modality.verifier if trusting else None,
            )  # fmt: skip
        return target, made

    return make


def members(archive: Path) -> list[Path]:
    return [archive / "ct.dcm", archive / "jpeg.dcm", archive / MR.name, archive / IMPLICIT.name]


DOCUMENTS: dict[str, dict[str, Any]] = {
    "a report": {},
    "a report with undefined lengths": {"undefined_lengths": True},
    "a verified report": {"verified": True},
    "a key object selection": {"sop_class": KEY_OBJECTS},
    "a report in implicit VR": {"syntax": ImplicitVRLittleEndian},
    "a report in big endian": {"syntax": ExplicitVRBigEndian},
    "a deflated report": {"syntax": DeflatedExplicitVRLittleEndian},
}


@pytest.mark.parametrize("wanted", DOCUMENTS.values(), ids=DOCUMENTS)
def test_A4b_every_reference_binds_and_the_other_implementation_agrees(
    wanted: dict[str, Any],
    tmp_path: Path,
    site: Site,
    modality: Site,
    archive: Path,
    signed: SignedDocument,
) -> None:
    ct, jpeg, mr, plan = members(archive)
    plain = document(tmp_path / "plain.dcm", [ct, mr, plan], [jpeg], **wanted)
    verified = bool(wanted.get("verified"))
    profile, purpose = (SR_VERIFICATION, VERIFICATION) if verified else (SR, AUTHOR)
    if wanted.get("sop_class") == KEY_OBJECTS:
        purpose = SOURCE
    with open_file(plain) as source:
        assert len(missing_references(source)) == 4
    path, made = signed(plain, profile, purpose)
    syntax = str(wanted.get("syntax", ExplicitVRLittleEndian))
    changes = syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian)
    assert (made.converted, made.transfer_syntax) == (
        changes,
        ExplicitVRLittleEndian if changes else syntax,
    )

    report = site.verifier.verify_file(path)
    assert SignaturePolicy(("require-sr",)).failures(report) == ()
    run(["/usr/bin/dcmsign", "--verify", "+rs", "+cf", site.anchor, path], check=True)
    option = "+pv" if verified else "+pr"
    again = ["/usr/bin/dcmsign", "+s", site.leaf.key, site.leaf.crt, option, "+m2", "+sp"]
    if made.transfer_syntax == ExplicitVRLittleEndian:
        run([*again, purpose.code, path, tmp_path / "theirs.dcm"], check=True)

    with open_file(path) as source:
        assert missing_references(source) == ()
    checked = check_file(path, found_in(archive), modality.verifier)
    assert checked.complete
    assert checked.reasons == ()
    assert [one.kind for one in checked.references] == ["signature", "mac", "mac", "signature"]

    found = references(path)
    for instance in (ct, jpeg):
        (there,) = pydicom.dcmread(instance).DigitalSignaturesSequence
        (item,) = found[uid_of(instance)].ReferencedDigitalSignatureSequence
        assert item.DigitalSignatureUID == there.DigitalSignatureUID
        assert item.Signature == there.Signature
        assert "ReferencedSOPInstanceMACSequence" not in found[uid_of(instance)]
    # Nothing else changed.
    without = pydicom.dcmread(path)
    del without.DigitalSignaturesSequence
    del without.MACParametersSequence
    for item in items_of(without):
        for keyword in ("ReferencedDigitalSignatureSequence", "ReferencedSOPInstanceMACSequence"):
            if keyword in item:
                del item[keyword]
    assert without == pydicom.dcmread(plain)


def test_the_MAC_of_a_reference_is_the_digest_of_the_elements_as_they_lie_there(
    tmp_path: Path, archive: Path, signed: SignedDocument
) -> None:
    path, _ = signed(document(tmp_path / "plain.dcm", [archive / MR.name]))
    (mac,) = references(path)[uid_of(MR)].ReferencedSOPInstanceMACSequence
    tags = [int(tag) for tag in mac.DataElementsSigned]
    ds = pydicom.dcmread(MR)
    # MR_small has no sequence, so that its bytes are the stream; (FFFC,FFFC) is padding.
    everything = [int(e.tag) for e in ds if e.tag.element and int(e.tag) != 0xFFFCFFFC]
    assert tags == everything
    content = MR.read_bytes()
    start = content.index(b"\x08\x00\x08\x00CS")
    end = content.index(b"\xfc\xff\xfc\xffOB")
    assert hashlib.sha256(content[start:end]).digest() == mac.MAC
    assert mac.MACAlgorithm == "SHA256"
    assert mac.MACCalculationTransferSyntaxUID == ExplicitVRLittleEndian


def test_a_known_answer(tmp_path: Path) -> None:
    # A compressed instance with a sequence of two items, the second empty; the digest is that of
    # the 104 bytes that the rules of PS3.3 C.12.1.1.3.1.1 make of it, put together by hand.
    data = b"\x08\0\x16\0UI\x1a\x001.2.840.10008.5.1.4.1.1.7\0"
    data += b"\x08\0\x18\0UI\x08\x001.2.3.4\0"
    data += b"\x08\0\x18\x22SQ\0\0\x1a\0\0\0"
    data += b"\xfe\xff\0\xe0\x0a\0\0\0" + b"\x08\0\0\x01SH\x02\0X " + b"\xfe\xff\0\xe0\0\0\0\0"
    data += b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\0\0\0\0"
    data += b"\xfe\xff\0\xe0\x04\0\0\0\xff\xd8\xff\xd9" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    meta = FileMeta("1.2.840.10008.5.1.4.1.1.7", "1.2.3.4", "1.2.840.10008.1.2.4.50", "1.2.3", "X")
    path = tmp_path / "known.dcm"
    path.write_bytes(encode_header(meta) + data)
    with open_file(path) as source:
        tags = [element.tag for element in source.elements]
        assert tags == [0x00080016, 0x00080018, 0x00082218, 0x7FE00010]
        assert mac_value(source, tags, MAC_ALGORITHMS["SHA256"]).hex() == (
            "170edcafbb2253f49f0bc1493c15f35ac30d27f87794481ac5de54253e2e66ed"
        )


NOT_RELIED_ON: dict[str, Callable[[Site, Path, Path], object]] = {
    "nobody says whom to trust": lambda site, source, target: site.sign(source, target),
    "it covers too little": lambda site, source, target: site.sign(
        source,
        target,
        Order(BASE, without=tuple(int(e.tag) for e in pydicom.dcmread(source))[2:]),
    ),
    "it can be forged": lambda site, source, target: site.sign(
        source, target, Order(CREATOR, algorithm="SHA1")
    ),
}


@pytest.mark.parametrize("sign", NOT_RELIED_ON.values(), ids=NOT_RELIED_ON)
def test_a_signature_that_binds_nothing_is_not_referred_to(
    sign: Callable[[Site, Path, Path], object],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    site: Site,
    modality: Site,
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    sign(modality, CT, folder / "ct.dcm")
    plain = document(tmp_path / "plain.dcm", [CT])
    blind = "nobody" in request.node.name
    with (tmp_path / "signed.dcm").open("wb") as out:
        sign_document(
            plain, out, site.signer, Order(SR, purpose=AUTHOR), found_in(folder),
            verifier=None if blind else modality.verifier,
        )  # fmt: skip
    (item,) = references(tmp_path / "signed.dcm").values()
    assert "ReferencedDigitalSignatureSequence" not in item
    assert "ReferencedSOPInstanceMACSequence" in item


def test_a_changed_signature_is_replaced_by_a_MAC(
    tmp_path: Path, site: Site, modality: Site, archive: Path
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    content = (archive / "ct.dcm").read_bytes()
    (folder / "ct.dcm").write_bytes(content.replace(b"CompressedSamples", b"compressedSamples"))
    with (
        open_file(document(tmp_path / "plain.dcm", [CT])) as source,
        (tmp_path / "out.dcm").open("wb") as out,
    ):
        edits = reference_edits(source, found_in(folder), modality.verifier)
        write_file(tmp_path / "plain.dcm", source, edits, out)
    (item,) = references(tmp_path / "out.dcm").values()
    assert "ReferencedSOPInstanceMACSequence" in item


def test_existing_references_are_kept(
    tmp_path: Path, archive: Path, modality: Site, signed: SignedDocument
) -> None:
    ct, mr = archive / "ct.dcm", archive / MR.name
    plain = document(tmp_path / "plain.dcm", [ct, mr])
    ds = pydicom.dcmread(plain)
    kept, empty = items_of(ds)
    reference = pydicom.Dataset()
    reference.DigitalSignatureUID, reference.Signature = "1.2.3", b"\1\2"
    kept.ReferencedDigitalSignatureSequence = [reference]
    empty.ReferencedSOPInstanceMACSequence = []
    empty.add_new(0x04010010, "LO", "after it")
    ds.save_as(plain)
    path, _ = signed(plain)
    found = references(path)
    assert found[uid_of(ct)].ReferencedDigitalSignatureSequence[0] == reference
    assert "ReferencedSOPInstanceMACSequence" not in found[uid_of(ct)]
    assert len(found[uid_of(mr)].ReferencedSOPInstanceMACSequence) == 1
    report = check_file(path, found_in(archive), modality.verifier)
    assert [one.same for one in report.references] == [False, True]
    assert report.complete, "A.4.b asks for references, and they are there"


def test_a_document_without_evidence_has_nothing_to_refer_to(
    site: Site, modality: Site, signed: SignedDocument, archive: Path, tmp_path: Path
) -> None:
    report = Path(str(get_testdata_file("reportsi.dcm")))
    path, _ = signed(report)
    run(["/usr/bin/dcmsign", "--verify", "+rs", "+cf", site.anchor, path], check=True)
    verified = pydicom.dcmread(str(get_testdata_file("test-SR.dcm")))
    del verified.VerifyingObserverSequence[1:]
    verified.save_as(tmp_path / "verified.dcm")
    path, _ = signed(tmp_path / "verified.dcm", SR_VERIFICATION, VERIFICATION)
    run(["/usr/bin/dcmsign", "--verify", "+rs", "+cf", site.anchor, path], check=True)
    assert check_file(path, found_in(archive), modality.verifier) == DocumentReport()


def lost(folder: Path) -> None:
    (folder / "ct.dcm").unlink()


def another(folder: Path) -> None:
    ds = pydicom.dcmread(folder / "ct.dcm")
    ds.SOPInstanceUID = "1.2.3.4"
    ds.save_as(folder / "ct.dcm")


def cut(folder: Path) -> None:
    (folder / "ct.dcm").write_bytes((folder / "ct.dcm").read_bytes()[:-1000])


def twice(folder: Path) -> None:
    content = (folder / "ct.dcm").read_bytes()
    element = b"\x10\x00\x20\x00LO\x02\x00A "
    at = content.index(b"\x10\x00\x30\x00DA")
    (folder / "ct.dcm").write_bytes(content[:at] + element + content[at:])


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "an instance that is not there": (lost, "found no instance {uid}"),
    "a file that holds another one": (another, "another instance"),
    "an instance that is cut short": (cut, "{uid}: "),
    "an instance with an element twice": (twice, "an element twice"),
}


@pytest.mark.parametrize(("spoil", "why"), REFUSED.values(), ids=REFUSED)
def test_A4b_neg_one_reference_cannot_be_made(
    spoil: Callable[[Path], None], why: str, tmp_path: Path, site: Site
) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "ct.dcm").write_bytes(CT.read_bytes())
    plain = document(tmp_path / "plain.dcm", [CT, MR])
    (folder / "mr.dcm").write_bytes(MR.read_bytes())
    spoil(folder)
    target = tmp_path / "signed.dcm"
    with target.open("wb") as out, pytest.raises(InvalidDataSet) as refused:
        sign_document(
            plain, out, site.signer, Order(SR, purpose=AUTHOR), lambda uid: folder / "ct.dcm"
            if (folder / "ct.dcm").exists() and uid == uid_of(CT)
            else found_in(folder)(uid),
        )  # fmt: skip
    assert why.format(uid=uid_of(CT)) in str(refused.value)
    assert "(0040,A375)[1]/(0008,1115)[1]/(0008,1199)[1]" in str(refused.value)
    assert "PS3.15 A.4.b" in str(refused.value)
    assert target.read_bytes() == b""


def test_A4a_other_profiles_are_refused(tmp_path: Path, site: Site) -> None:
    plain = document(tmp_path / "plain.dcm", [CT])
    for order in (Order(BASE), Order(SR, purpose=AUTHOR, location="(0040,A375)[1]")):
        with (
            (tmp_path / "out.dcm").open("wb") as out,
            pytest.raises(ConfigurationError, match=r"A\.4\.a"),
        ):
            sign_document(plain, out, site.signer, order, {uid_of(CT): CT}.get)


def test_references_never_break_a_signature(
    tmp_path: Path, site: Site, signed: SignedDocument, archive: Path
) -> None:
    plain = document(tmp_path / "plain.dcm", [CT])
    site.sign(plain, tmp_path / "early.dcm", Order(SR, purpose=AUTHOR))
    with pytest.raises(InvalidDataSet, match="evidence that is signed without references"):
        signed(tmp_path / "early.dcm")
    ds = pydicom.dcmread(tmp_path / "early.dcm")
    study = ds.CurrentRequestedProcedureEvidenceSequence[0]
    for keyword in ("MACParametersSequence", "DigitalSignaturesSequence"):
        setattr(study, keyword, getattr(ds, keyword))
        delattr(ds, keyword)
    ds.save_as(tmp_path / "nested.dcm")
    with pytest.raises(InvalidDataSet, match="evidence that is signed without references"):
        signed(tmp_path / "nested.dcm")
    # A signature that leaves the evidence alone is no hindrance, and stays valid.
    tags = [int(element.tag) for element in pydicom.dcmread(plain)]
    site.sign(plain, tmp_path / "beside.dcm", Order(BASE, without=(0x0040A375,)))
    assert 0x0040A375 in tags
    path, _ = signed(tmp_path / "beside.dcm")
    report = site.verifier.verify_file(path)
    assert [one.valid for one in report.signatures] == [True, True]
    # Signing a document whose references are there adds a signature, and nothing else.
    with (tmp_path / "thrice.dcm").open("wb") as out:
        sign_document(path, out, site.signer, Order(SR, purpose=AUTHOR), {}.get)
    report = site.verifier.verify_file(tmp_path / "thrice.dcm")
    assert [one.valid for one in report.signatures] == [True, True, True]


def test_evidence_that_cannot_be_walked_is_refused(tmp_path: Path, signed: SignedDocument) -> None:
    plain = document(tmp_path / "plain.dcm", [CT])
    content = plain.read_bytes()
    series = b"\x08\x00\x99\x11SQ"
    assert content.count(series) == 1
    (tmp_path / "un.dcm").write_bytes(content.replace(series, b"\x08\x00\x99\x11UN"))
    with pytest.raises(InvalidDataSet, match=r"VR UN.*SQ.*C\.17\.2\.1"):
        signed(tmp_path / "un.dcm")


def test_documents_are_of_the_right_kind(tmp_path: Path, signed: SignedDocument) -> None:
    image = pydicom.dcmread(document(tmp_path / "plain.dcm", []))
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    with pytest.raises(InvalidDataSet, match="neither an SR document nor a Key Object Selection"):
        signed(tmp_path / "image.dcm")
    assert COMPREHENSIVE_SR.startswith("1.2.840.10008.5.1.4.1.1.88.")
