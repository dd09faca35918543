"""Signatures are taken out, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_secure_node.errors import InvalidDataSet
from dicom_secure_node.signatures.profiles import BASE
from dicom_secure_node.signatures.sign import Order
from dicom_secure_node.signatures.strip import Stripped, strip
from tests.parts import run
from tests.signatures.documents import document
from tests.signatures.signing_parts import CT, Site

FILES = ("CT_small.dcm", "SC_rgb_jpeg_dcmtk.dcm", "waveform_ecg.dcm", "reportsi.dcm")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def stripped(path: Path, uids: tuple[str, ...] | None = None) -> tuple[bytes, Stripped]:
    target = path.with_name(f"stripped-{path.name}")
    with target.open("wb") as out:
        done = strip(path, out, uids)
    return target.read_bytes(), done


@pytest.mark.parametrize("name", FILES)
def test_what_was_signed_is_as_it_was_before(name: str, site: Site, tmp_path: Path) -> None:
    signed = tmp_path / name
    made = site.sign(Path(str(get_testdata_file(name))), signed, Order(BASE))
    once, done = stripped(signed)
    assert done == Stripped((made.uid,), made.transfer_syntax, False)
    # Signing may have tidied paddings: so the second time round is compared.
    (tmp_path / "once.dcm").write_bytes(once)
    site.sign(tmp_path / "once.dcm", signed, Order(BASE))
    assert stripped(signed)[0] == once


@pytest.mark.parametrize("undefined", [False, True], ids=["defined lengths", "undefined lengths"])
def test_signatures_go_one_by_one_and_the_lengths_follow(
    undefined: bool, site: Site, tmp_path: Path
) -> None:
    plain = document(tmp_path / "plain.dcm", [CT], undefined_lengths=undefined)
    steps, uids = [plain], []
    for number, location in enumerate(
        ("", "(0040,A375)[1]/(0008,1115)[1]", "(0040,A730)[1]", "", "(0040,A730)[1]")
    ):
        order = Order(BASE, location=location)
        target = tmp_path / f"{number}.dcm"
        uids.append(site.sign(steps[-1], target, order).uid)
        steps.append(target)
    signed = steps[-1]
    assert all(one.valid for one in site.verifier.verify_file(signed).signatures)
    for uid in uids:
        content, done = stripped(signed, (uid,))
        assert done.uids == (uid,)
        one_less = tmp_path / "one-less.dcm"
        one_less.write_bytes(content)
        left = site.verifier.verify_file(one_less).signatures
        assert {one.uid for one in left} == set(uids) - {uid}
        assert all(one.valid for one in left)
        run(["/usr/bin/dcmsign", "--verify", "+cf", site.anchor, one_less], check=True)
    assert stripped(signed)[0] == plain.read_bytes()
    assert set(stripped(signed)[1].uids) == set(uids)
    for before, after, uid in zip(steps, steps[1:], uids, strict=False):
        assert stripped(after, (uid,))[0] == before.read_bytes()
    # The other implementation takes the same ones out.
    run(["/usr/bin/dcmsign", "+ra", signed, tmp_path / "theirs.dcm"], check=True)
    assert pydicom.dcmread(tmp_path / "theirs.dcm") == pydicom.dcmread(plain)


def test_MAC_parameters_stay_as_long_as_somebody_refers_to_them(site: Site, tmp_path: Path) -> None:
    signed = tmp_path / "signed.dcm"
    site.sign(CT, signed)
    ds = pydicom.dcmread(signed)
    (first,) = ds.DigitalSignaturesSequence
    second = pydicom.Dataset.from_json(first.to_json())
    second.DigitalSignatureUID = "1.2.3"
    ds.DigitalSignaturesSequence.append(second)
    orphan = pydicom.Dataset.from_json(ds.MACParametersSequence[0].to_json())
    orphan.MACIDNumber = 77
    ds.MACParametersSequence.append(orphan)
    ds.save_as(signed)
    content, done = stripped(signed, ("1.2.3",))
    (tmp_path / "one.dcm").write_bytes(content)
    left = pydicom.dcmread(tmp_path / "one.dcm")
    assert [one.DigitalSignatureUID for one in left.DigitalSignaturesSequence] == [
        first.DigitalSignatureUID
    ]
    assert len(left.MACParametersSequence) == 2
    assert done.uids == ("1.2.3",)
    content, _ = stripped(signed)
    (tmp_path / "none.dcm").write_bytes(content)
    assert "MACParametersSequence" not in pydicom.dcmread(tmp_path / "none.dcm")


def test_nothing_to_take_out_is_a_copy(tmp_path: Path, site: Site) -> None:
    for name in ("CT_small.dcm", "rtplan.dcm", "MR_small_bigendian.dcm"):
        path = tmp_path / name
        path.write_bytes(Path(str(get_testdata_file(name))).read_bytes())
        content, done = stripped(path)
        assert content == path.read_bytes()
        assert (done.uids, done.converted) == ((), False)
    site.sign(CT, tmp_path / "signed.dcm")
    content, done = stripped(tmp_path / "signed.dcm", ("1.2.3",))
    assert content == (tmp_path / "signed.dcm").read_bytes()
    assert done.uids == ()


def test_other_encodings_become_the_one_that_is_signed(tmp_path: Path, site: Site) -> None:
    site.sign(CT, tmp_path / "signed.dcm")
    ds = pydicom.dcmread(tmp_path / "signed.dcm")
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.save_as(tmp_path / "implicit.dcm", implicit_vr=True)
    content, done = stripped(tmp_path / "implicit.dcm")
    assert (done.transfer_syntax, done.converted) == (ExplicitVRLittleEndian, True)
    (tmp_path / "out.dcm").write_bytes(content)
    assert pydicom.dcmread(tmp_path / "out.dcm").PixelData == pydicom.dcmread(CT).PixelData


def test_former_signatures_are_history_and_stay(tmp_path: Path, site: Site) -> None:
    site.sign(CT, tmp_path / "signed.dcm")
    ds = pydicom.dcmread(tmp_path / "signed.dcm")
    former = pydicom.Dataset()
    former.DigitalSignaturesSequence = ds.DigitalSignaturesSequence
    modified = pydicom.Dataset()
    modified.ModifiedAttributesSequence = [former]
    ds.OriginalAttributesSequence = [modified]
    ds.save_as(tmp_path / "history.dcm")
    content, done = stripped(tmp_path / "history.dcm")
    assert len(done.uids) == 1
    (tmp_path / "out.dcm").write_bytes(content)
    assert "DigitalSignaturesSequence" not in pydicom.dcmread(tmp_path / "out.dcm")
    assert stripped(tmp_path / "out.dcm")[1].uids == ()


def test_a_signature_that_cannot_be_read_goes_too(tmp_path: Path, site: Site) -> None:
    site.sign(CT, tmp_path / "signed.dcm")
    content = (tmp_path / "signed.dcm").read_bytes()
    mac_id = b"\x00\x04\x05\x00US"
    at = content.rindex(mac_id)
    (tmp_path / "bad.dcm").write_bytes(content[:at] + b"\x00\x04\x05\x00SS" + content[at + 6 :])
    left, done = stripped(tmp_path / "bad.dcm")
    assert done.uids == ("",)
    assert left == stripped(tmp_path / "signed.dcm")[0]


def test_what_is_no_DICOM_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.dcm").write_bytes(b"no DICOM")
    with pytest.raises(InvalidDataSet, match="no DICM"):
        stripped(tmp_path / "no.dcm")
