"""What was signed comes out, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_secure_node.errors import ConfigurationError, SignatureRejected, StoreRefused
from dicom_secure_node.signatures.content import signed_content
from dicom_secure_node.signatures.policy import Requirement, SignaturePolicy
from dicom_secure_node.signatures.profiles import BASE, CREATOR
from dicom_secure_node.signatures.report import InstanceReport
from dicom_secure_node.signatures.sign import Order
from dicom_secure_node.signatures.source import Source
from dicom_secure_node.signatures.verify import Verifier
from tests.signatures.signing_parts import CT, Site, tamper

SIGNED = SignaturePolicy()
PATIENT_ID, WEIGHT, PIXELS = 0x00100020, 0x00101030, 0x7FE00010
TAGS = frozenset(int(element.tag) for element in pydicom.dcmread(CT))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def covering(*tags: int) -> Order:
    return Order(BASE, without=tuple(TAGS.difference(tags)))


def changed(path: Path, edit: Callable[[Dataset], object]) -> Path:
    ds = pydicom.dcmread(path)
    edit(ds)
    ds.save_as(path)
    return path


@pytest.mark.parametrize(
    "name",
    ["CT_small.dcm", "SC_rgb_jpeg_dcmtk.dcm", "reportsi.dcm", "test-SR.dcm", "waveform_ecg.dcm",
     "MR_small_RLE.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm", "examples_overlay.dcm"],
)  # fmt: skip
def test_the_covered_elements_are_those_of_the_file(name: str, site: Site, tmp_path: Path) -> None:
    signed = tmp_path / name
    made = site.sign(Path(str(get_testdata_file(name))), signed, Order(BASE))
    content = signed_content(signed, site.verifier, SIGNED)
    assert content.covered == made.tags
    there = pydicom.dcmread(signed)
    found = content.dataset()
    assert tuple(int(element.tag) for element in found) == made.tags
    for element in found:
        assert element == there[element.tag]
    assert set(content.left_out).isdisjoint(made.tags)
    assert found.file_meta.TransferSyntaxUID == content.transfer_syntax
    deflated = made.transfer_syntax == DeflatedExplicitVRLittleEndian
    assert content.transfer_syntax == (ExplicitVRLittleEndian if deflated else made.transfer_syntax)
    assert content.dataset() is not found, "whoever changes one changes no other"


def test_pixels_can_be_decoded(site: Site, tmp_path: Path) -> None:
    signed = tmp_path / "signed.dcm"
    site.sign(Path(str(get_testdata_file("MR_small_RLE.dcm"))), signed, Order(BASE))
    found = signed_content(signed, site.verifier, SIGNED).dataset()
    assert found.PixelData == pydicom.dcmread(signed).PixelData
    assert (found.Rows, found.Columns) == (64, 64)


def test_what_was_not_signed_is_not_there(site: Site, tmp_path: Path) -> None:
    signed = tmp_path / "signed.dcm"
    site.sign(CT, signed, covering(PATIENT_ID, PIXELS))

    def add(ds: Dataset) -> None:
        ds.PatientComments = "added by somebody"
        ds.PatientWeight = "7"

    changed(signed, add)
    content = signed_content(signed, site.verifier, SIGNED)
    found = content.dataset()
    assert [int(element.tag) for element in found] == [PATIENT_ID, PIXELS]
    assert found.PatientID == "1CT1"
    assert {0x00104000, WEIGHT} <= set(content.left_out)
    assert PATIENT_ID not in content.left_out
    assert "1CT1" not in repr(content)
    assert content.report.signatures[0].valid


def test_of_a_sequence_comes_what_was_signed_with_it(site: Site, tmp_path: Path) -> None:
    ds = pydicom.dcmread(str(get_testdata_file("reportsi.dcm")))
    ds.save_as(tmp_path / "plain.dcm")
    inner, signed = tmp_path / "inner.dcm", tmp_path / "signed.dcm"
    site.sign(tmp_path / "plain.dcm", inner, Order(BASE, location="(0040,A730)[1]"))
    site.sign(inner, signed, Order(BASE))

    # A nested signature may be taken out, put in or changed under the outer one.
    def forge(ds: Dataset) -> None:
        (item,) = ds.ContentSequence[0].DigitalSignaturesSequence
        item.DigitalSignatureUID = "1.2.3"

    assert "DigitalSignaturesSequence" in pydicom.dcmread(signed).ContentSequence[0]
    found = signed_content(signed, site.verifier, SIGNED).dataset()
    assert found.ContentSequence == pydicom.dcmread(tmp_path / "plain.dcm").ContentSequence
    with pytest.raises(SignatureRejected, match="signed elements were changed"):
        signed_content(changed(signed, forge), site.verifier, SIGNED)


def test_a_signature_in_an_item_alone_covers_nothing_here(site: Site, tmp_path: Path) -> None:
    signed = tmp_path / "signed.dcm"
    report = Path(str(get_testdata_file("reportsi.dcm")))
    site.sign(report, signed, Order(BASE, location="(0040,A730)[1]"))
    content = signed_content(signed, site.verifier, SignaturePolicy(("verify-if-present",)))
    assert len(content.report.signatures) == 1
    assert (content.covered, list(content.dataset())) == ((), [])
    with pytest.raises(SignatureRejected, match="no digital signature of the main data set"):
        signed_content(signed, site.verifier, SIGNED)


def test_a_sequence_with_unknown_parts_is_left_out(site: Site, tmp_path: Path) -> None:
    ds = pydicom.dcmread(CT)
    item = Dataset()
    item.add_new(0x00291010, "UN", b"who knows")
    ds.add_new(0x00081110, "SQ", [item])
    ds.save_as(tmp_path / "plain.dcm")
    site.sign(tmp_path / "plain.dcm", tmp_path / "signed.dcm", Order(BASE))
    content = signed_content(tmp_path / "signed.dcm", site.verifier, SIGNED)
    assert 0x00081110 in content.left_out
    assert 0x00081110 not in content.dataset()


def test_only_a_signature_that_satisfies_by_itself_counts(site: Site, tmp_path: Path) -> None:
    first, signed = tmp_path / "first.dcm", tmp_path / "signed.dcm"
    site.sign(CT, first, Order(CREATOR))
    site.sign(first, signed, covering(WEIGHT))
    both = signed_content(signed, site.verifier, SIGNED)
    creator = signed_content(signed, site.verifier, SignaturePolicy(("require-creator",)))
    assert WEIGHT in both.covered
    assert set(both.covered) - set(creator.covered) == {WEIGHT}
    assert WEIGHT in creator.left_out


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-700])
    return path


def forged(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    at = content.rindex(b"\x00\x04\x20\x01OB") + 12
    content[at] ^= 1
    path.write_bytes(content)
    return path


def no_dicom(path: Path) -> Path:
    path.write_bytes(b"no DICOM")
    return path


REJECTED: dict[str, tuple[Callable[[Path], Path], tuple[Requirement, ...], str]] = {
    "a signed element was changed": (
        lambda path: tamper(path, b"Samples^CT1", b"Samples^CT2"), ("require-signature",),
        "signed elements were changed",
    ),
    "the same, where a signature is not demanded": (
        lambda path: tamper(path, b"Samples^CT1", b"Samples^CT2"), ("verify-if-present",),
        "signed elements were changed",
    ),
    "the signature value was changed": (
        forged, ("require-signature",), "not made with the key of its certificate",
    ),
    "nobody signed": (
        lambda path: CT, ("require-signature",), "no digital signature of the main data set",
    ),
    "a profile is missed": (
        lambda path: path, ("require-timestamp",), "no certified timestamp that counts",
    ),
    "a file that is cut short": (cut, ("require-signature",), "found length"),
    "no DICOM file": (no_dicom, ("require-signature",), "no DICM"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "requirements", "reason"), REJECTED.values(), ids=REJECTED)
def test_what_does_not_satisfy_is_rejected(
    spoil: Callable[[Path], Path],
    requirements: tuple[Requirement, ...],
    reason: str,
    site: Site,
    tmp_path: Path,
) -> None:
    signed = tmp_path / "signed.dcm"
    site.sign(CT, signed, Order(BASE))
    with pytest.raises(SignatureRejected) as rejected:
        signed_content(spoil(signed), site.verifier, SignaturePolicy(requirements))
    assert reason in rejected.value.reason
    assert rejected.value.status == 0xC000
    assert isinstance(rejected.value, StoreRefused)


def test_a_signer_nobody_trusts_is_rejected(site: Site, tmp_path: Path) -> None:
    # Whom to trust is for the verifier: what comes out is what its report calls valid.
    stranger = Site(tmp_path / "stranger", "stranger")
    stranger.sign(CT, tmp_path / "signed.dcm")
    (one,) = site.verifier.verify_file(tmp_path / "signed.dcm").signatures
    if one.valid:
        assert signed_content(tmp_path / "signed.dcm", site.verifier, SIGNED).covered
        return
    with pytest.raises(SignatureRejected, match="signer not trusted"):
        signed_content(tmp_path / "signed.dcm", site.verifier, SIGNED)


def test_a_policy_that_looks_at_nothing_is_refused(site: Site) -> None:
    with pytest.raises(ConfigurationError, match="wanted one that looks"):
        signed_content(CT, site.verifier, SignaturePolicy(("ignore",)))


@pytest.mark.parametrize("size", [0, 5 << 20], ids=["a small file", "a file that would be mapped"])
def test_a_file_that_changes_while_it_is_looked_at_changes_nothing(
    size: int, site: Site, tmp_path: Path
) -> None:
    signed = tmp_path / "signed.dcm"
    ds = pydicom.dcmread(CT)
    ds.PixelData += bytes(size)
    ds.save_as(tmp_path / "plain.dcm")
    site.sign(tmp_path / "plain.dcm", signed, Order(BASE))
    before = signed.read_bytes()

    class Slow(Verifier):
        """While it verifies, and after it has, somebody writes to the file."""

        def verify_source(self, source: Source) -> InstanceReport:
            with signed.open("r+b") as file:
                os.pwrite(file.fileno(), before.replace(b"1CT1", b"9CT9"), 0)
            report: InstanceReport = site.verifier.verify_source(source)
            signed.write_bytes(b"gone")
            return report

    slow = Slow.__new__(Slow)
    found = signed_content(signed, slow, SIGNED).dataset()
    assert found.PatientID == "1CT1"
    assert found.PixelData == ds.PixelData
    assert signed.read_bytes() == b"gone"


def test_implicit_VR_is_made_explicit_first(site: Site, tmp_path: Path) -> None:
    signed = tmp_path / "signed.dcm"
    site.sign(CT, signed, covering(PATIENT_ID, PIXELS))
    ds = pydicom.dcmread(signed)
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.save_as(tmp_path / "implicit.dcm", implicit_vr=True)
    content = signed_content(tmp_path / "implicit.dcm", site.verifier, SIGNED)
    assert content.transfer_syntax == ExplicitVRLittleEndian
    assert content.dataset().PixelData == ds.PixelData
