"""An instance is sent on in another encoding, with signatures that hold (PS3.15 A.2.c)."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from dicom_secure_node.elements.part10 import TRANSFER_SYNTAX, read_header
from dicom_secure_node.errors import InvalidDataSet
from dicom_secure_node.signatures.copying import write_file
from dicom_secure_node.signatures.nested import enclosed, outermost
from dicom_secure_node.signatures.profiles import BASE
from dicom_secure_node.signatures.renew import Renewed, renew, renew_data_set
from dicom_secure_node.signatures.sign import Order
from dicom_secure_node.signatures.source import open_file
from dicom_secure_node.signatures.writing import Edit, encode
from tests.parts import run
from tests.signatures.signing_parts import CT, Site

PIXELS, MANUFACTURER, SLICE, PATIENT_ID = 0x7FE00010, 0x00080070, 0x00180050, 0x00100020
SEQUENCE = 0x00081110
TAGS = tuple(int(element.tag) for element in pydicom.dcmread(CT))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Who signs first."""
    return Site(tmp_path_factory.mktemp("device"), "device")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Who sends on."""
    return Site(tmp_path_factory.mktemp("gateway"), "gateway")


def covering(*tags: int) -> Order:
    """Return an order for a signature over these elements, and no others."""
    return Order(BASE, without=tuple({*TAGS, SEQUENCE}.difference(tags)))


def number_differently(ds: Dataset) -> None:
    ds.SliceThickness = f"{float(ds.SliceThickness):.4f}"


def trim(ds: Dataset) -> None:
    ds.Manufacturer = ds.Manufacturer.strip()
    assert int(ds["Manufacturer"].tag) == MANUFACTURER


def compress(ds: Dataset) -> None:
    ds.compress(RLELossless, generate_instance_uid=False)


def nothing(ds: Dataset) -> None:
    assert ds.SliceThickness, "decoded, so that it is encoded anew"


def to_implicit(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def pass_on(
    received: Path, edit: Callable[[Dataset], object], device: Site, gateway: Site
) -> tuple[Path, Renewed]:
    """Re-encode an instance with pydicom, and renew its signatures."""
    ds = pydicom.dcmread(received)
    edit(ds)
    encoded = received.with_name("encoded.dcm")
    ds.save_as(encoded)
    return renewed(received, encoded, device, gateway)


def renewed(received: Path, encoded: Path, device: Site, gateway: Site) -> tuple[Path, Renewed]:
    target = received.with_name("sent.dcm")
    with target.open("wb") as out:
        return target, renew(received, encoded, out, gateway.signer, device.verifier)


def verdicts(path: Path, site: Site) -> list[bool]:
    return [one.valid for one in site.verifier.verify_file(path).signatures]


def verified_by_dcmsign(path: Path, *sites: Site) -> None:
    anchors = [word for site in sites for word in ("+cf", site.anchor)]
    run(["/usr/bin/dcmsign", "--verify", "+rg", *anchors, path], check=True)


BREAKING: dict[str, Callable[[Dataset], object]] = {
    "a number is written differently": number_differently,
    "pixel data are compressed": compress,
    "both": lambda ds: (number_differently(ds), compress(ds)),
    "and it becomes implicit VR": lambda ds: (number_differently(ds), to_implicit(ds)),
}


@pytest.mark.parametrize("edit", BREAKING.values(), ids=BREAKING)
def test_A2c_a_signature_that_broke_is_replaced(
    edit: Callable[[Dataset], object], device: Site, gateway: Site, tmp_path: Path
) -> None:
    received = tmp_path / "received.dcm"
    order = covering(SLICE, PIXELS, PATIENT_ID, 0x00080018)
    old = device.sign(CT, received, order)
    path, done = pass_on(received, edit, device, gateway)
    assert [one.uid for one in done.dropped] == [old.uid]
    assert (done.kept, done.why_none, done.invalid, done.left_out) == ((), "", (), ())
    assert done.made is not None
    assert done.made.tags == old.tags, "what had been verified, and nothing else"
    (one,) = gateway.verifier.verify_file(path).signatures
    assert (one.uid, one.valid, one.remarks[1:]) == (done.made.uid, True, ())
    assert one.signer == "CN=gateway,O=Test Hospital"
    verified_by_dcmsign(path, gateway)
    sent = pydicom.dcmread(path)
    assert sent.file_meta.TransferSyntaxUID == done.transfer_syntax
    encoded = pydicom.dcmread(received.with_name("encoded.dcm"))
    assert sent.PixelData == encoded.PixelData
    assert len(sent.DigitalSignaturesSequence) == len(sent.MACParametersSequence) == 1


def test_A2c_trimmed_padding(device: Site, gateway: Site, tmp_path: Path) -> None:
    received = tmp_path / "received.dcm"
    padded, tidy = tmp_path / "padded.dcm", tmp_path / "tidy.dcm"
    ds = pydicom.dcmread(CT)
    ds.save_as(tidy)
    # A second signature over the padded text: the first one keeps the signer from tidying.
    device.sign(tidy, padded, covering(PIXELS))
    pad(padded, tmp_path / "padded2.dcm")
    both = (MANUFACTURER, PIXELS)
    made = device.sign(tmp_path / "padded2.dcm", received, covering(*both))
    assert made.tags == both
    path, done = pass_on(received, trim, device, gateway)
    assert [one.coverage.signed for one in done.kept] == [(PIXELS,)]
    assert [one.uid for one in done.dropped] == [made.uid]
    assert done.made is not None
    assert done.made.tags == both
    assert verdicts(path, gateway)[1]
    assert verdicts(path, device)[0]
    verified_by_dcmsign(path, gateway, device)


def pad(path: Path, target: Path) -> None:
    """Write a copy whose Manufacturer has four more pad bytes."""
    with open_file(path) as source, target.open("wb") as out:
        nest = outermost(source.elements)
        found = nest.element(MANUFACTURER)
        assert found is not None
        value = bytes(source.reader.buffer[found.value : found.end])
        element = encode(MANUFACTURER, b"LO", value + b"    ")
        write_file(path, source, enclosed([(Edit(found.start, found.end, element), ())]), out)


def test_A2c_a_signature_in_doubt_is_replaced(device: Site, gateway: Site, tmp_path: Path) -> None:
    # With padding added some products still call it valid, and others do not.
    received, encoded = tmp_path / "received.dcm", tmp_path / "encoded.dcm"
    old = device.sign(CT, received, covering(MANUFACTURER))
    pad(received, encoded)
    (before,) = device.verifier.verify_file(encoded).signatures
    assert before.valid
    path, done = renewed(received, encoded, device, gateway)
    assert [one.uid for one in done.dropped] == [old.uid]
    assert done.made is not None
    (one,) = gateway.verifier.verify_file(path).signatures
    assert (one.valid, one.coverage.signed) == (True, (MANUFACTURER,))
    # It had been so when it came in: nobody here made it worse.
    path, done = renewed(encoded, encoded, device, gateway)
    assert [one.uid for one in done.kept] == [old.uid]
    assert path.read_bytes() == encoded.read_bytes()


def test_A2c_a_signature_that_still_holds_is_kept(
    device: Site, gateway: Site, tmp_path: Path
) -> None:
    received = tmp_path / "received.dcm"
    first = device.sign(CT, tmp_path / "first.dcm", covering(PATIENT_ID))
    second = device.sign(tmp_path / "first.dcm", received, covering(SLICE))
    path, done = pass_on(received, number_differently, device, gateway)
    assert [one.uid for one in done.kept] == [first.uid]
    assert [one.uid for one in done.dropped] == [second.uid]
    assert done.made is not None
    assert done.made.tags == (PATIENT_ID, SLICE)
    kept, made = device.verifier.verify_file(path).signatures
    assert (kept.uid, kept.valid, kept.coverage.signed) == (first.uid, True, (PATIENT_ID,))
    assert made.uid == done.made.uid
    assert made.intact
    assert len(pydicom.dcmread(path).MACParametersSequence) == 2
    verified_by_dcmsign(path, gateway, device)


def test_nothing_broke(device: Site, gateway: Site, tmp_path: Path) -> None:
    received = tmp_path / "received.dcm"
    device.sign(CT, received, covering(PATIENT_ID, PIXELS))
    path, done = pass_on(received, nothing, device, gateway)
    assert (done.dropped, done.made) == ((), None)
    assert done.why_none == "every valid signature still holds"
    assert path.read_bytes() == received.with_name("encoded.dcm").read_bytes()
    # Implicit VR keeps what is in the dictionary.
    path, done = pass_on(received, to_implicit, device, gateway)
    assert (len(done.kept), done.made) == (1, None)
    assert done.transfer_syntax == ImplicitVRLittleEndian
    assert verdicts(path, device) == [True]


def test_unsigned_stays_unsigned(device: Site, gateway: Site, tmp_path: Path) -> None:
    for number, name in enumerate(("CT_small.dcm", "rtplan.dcm", "MR_small_bigendian.dcm")):
        folder = tmp_path / str(number)
        folder.mkdir()
        received = folder / name
        received.write_bytes(Path(str(get_testdata_file(name))).read_bytes())
        path, done = renewed(received, received, device, gateway)
        assert path.read_bytes() == received.read_bytes()
        assert (done.made, done.why_none) == (None, "the instance had no signature")


def test_what_could_not_be_verified_is_not_signed_anew(
    device: Site, gateway: Site, tmp_path: Path
) -> None:
    received = tmp_path / "received.dcm"
    device.sign(CT, tmp_path / "signed.dcm", covering(PATIENT_ID, SLICE))
    ds = pydicom.dcmread(tmp_path / "signed.dcm")
    ds.PatientID = "somebody else"
    ds.save_as(received)
    path, done = pass_on(received, number_differently, device, gateway)
    assert (done.made, done.why_none) == (None, "nothing could be verified when it came in")
    assert len(done.dropped) == len(done.invalid) == 1
    assert verdicts(path, device) == []
    assert "MACParametersSequence" not in pydicom.dcmread(path)
    # Beside a valid one: its elements are signed anew, and those of the other are not.
    second = device.sign(received, tmp_path / "second.dcm", covering(SLICE, PIXELS))
    received.write_bytes((tmp_path / "second.dcm").read_bytes())
    path, done = pass_on(received, number_differently, device, gateway)
    assert done.made is not None
    assert done.made.tags == second.tags == (SLICE, PIXELS)
    assert [one.coverage.signed for one in done.invalid] == [(PATIENT_ID, SLICE)]
    assert len(done.dropped) == 2
    assert verdicts(path, gateway) == [True]


def test_a_signature_the_encoder_lost_is_made_anew(
    device: Site, gateway: Site, tmp_path: Path
) -> None:
    received = tmp_path / "received.dcm"
    device.sign(CT, received, covering(PATIENT_ID, SLICE))

    def lose(ds: Dataset) -> None:
        del ds.DigitalSignaturesSequence
        del ds.SliceThickness

    path, done = pass_on(received, lose, device, gateway)
    assert done.dropped == ()
    assert done.made is not None
    assert done.made.tags == (PATIENT_ID,)
    assert done.left_out == (SLICE,)
    assert verdicts(path, gateway) == [True]

    def lose_all(ds: Dataset) -> None:
        lose(ds)
        del ds.PatientID

    path, done = pass_on(received, lose_all, device, gateway)
    assert done.why_none == "nothing that was verified when it came in can be signed now"
    assert "DigitalSignaturesSequence" not in pydicom.dcmread(path)


def test_signatures_in_items_are_dropped_and_not_made_anew(
    device: Site, gateway: Site, tmp_path: Path
) -> None:
    ds = pydicom.dcmread(CT)
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.3", "1.2.4"
    item.add_new(0x00181271, "FD", 1.0)
    item.add_new(0x00280030, "DS", ["1.0", "2.0"])
    ds.add_new(SEQUENCE, "SQ", [item])
    ds.save_as(tmp_path / "plain.dcm")
    inner, received = tmp_path / "inner.dcm", tmp_path / "received.dcm"
    nested = device.sign(tmp_path / "plain.dcm", inner, Order(BASE, location="(0008,1110)[1]"))
    outer = device.sign(inner, received, covering(SEQUENCE))
    assert outer.tags == (SEQUENCE,)

    def edit(ds: Dataset) -> None:
        ds[SEQUENCE].value[0].PixelSpacing = ["1.00", "2.00"]

    path, done = pass_on(received, edit, device, gateway)
    assert {one.uid for one in done.dropped} == {nested.uid, outer.uid}
    assert done.made is not None
    assert done.made.tags == (SEQUENCE,)
    (item,) = pydicom.dcmread(path)[SEQUENCE].value
    assert "DigitalSignaturesSequence" not in item
    assert "MACParametersSequence" not in item
    assert verdicts(path, gateway) == [True]
    # Where only the one inside broke, nothing of the main data set was lost.
    device.sign(inner, received, covering(PATIENT_ID))
    path, done = pass_on(received, edit, device, gateway)
    assert [one.uid for one in done.dropped] == [nested.uid]
    assert done.made is None
    assert verdicts(path, device) == [True]


def test_a_data_set_without_header(device: Site, gateway: Site, tmp_path: Path) -> None:
    received, encoded = tmp_path / "received.dcm", tmp_path / "encoded.dcm"
    device.sign(CT, received, covering(SLICE))
    report = device.verifier.verify_file(received)
    ds = pydicom.dcmread(received)
    number_differently(ds)
    ds.save_as(encoded)
    with encoded.open("rb") as file:
        syntax = read_header(file).text(TRANSFER_SYNTAX)
        data_set = file.read()
    for data in (data_set, CT.read_bytes()):
        source = io.BytesIO(data)
        if data is not data_set:
            read_header(source)
        out = io.BytesIO()
        done = renew_data_set(report, source, syntax, out, gateway.signer, device.verifier)
        assert done.made is not None
        out.seek(0)
        (one,) = gateway.verifier.verify_data_set(out, done.transfer_syntax).signatures
        assert (one.valid, one.coverage.signed) == (True, (SLICE,))
    unsigned = device.verifier.verify_file(CT)
    source, out = io.BytesIO(CT.read_bytes()), io.BytesIO()
    start = read_header(source).offset
    renew_data_set(unsigned, source, ExplicitVRLittleEndian, out, gateway.signer, device.verifier)
    assert out.getvalue() == CT.read_bytes()[start:]


def test_two_instances_are_refused(device: Site, gateway: Site, tmp_path: Path) -> None:
    received, other = tmp_path / "received.dcm", tmp_path / "other.dcm"
    device.sign(CT, received)
    ds = pydicom.dcmread(received)
    ds.SOPInstanceUID = "1.2.3"
    ds.save_as(other)
    with pytest.raises(InvalidDataSet, match=r"another instance.*A\.2\.c"):
        renewed(received, other, device, gateway)
    (tmp_path / "no.dcm").write_bytes(b"no DICOM")
    with pytest.raises(InvalidDataSet, match="no DICM"):
        renewed(tmp_path / "no.dcm", received, device, gateway)
    assert (tmp_path / "sent.dcm").read_bytes() == b""
