"""What goes by on the wire is judged as what lies in a file is."""

from __future__ import annotations

import dataclasses
import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from pydicom.data import get_testdata_file

from dicom_secure_node.elements.part10 import TRANSFER_SYNTAX, read_header
from dicom_secure_node.signatures.profiles import BASE
from dicom_secure_node.signatures.report import InstanceReport
from dicom_secure_node.signatures.sign import Order
from dicom_secure_node.signatures.streaming import KEPT, LARGE, SignatureStream
from tests.signatures.signing_parts import CT, Site

EXPLICIT = "1.2.840.10008.1.2.1"
FILES = (
    "CT_small.dcm",
    "JPEG2000.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "MR_small_RLE.dcm",
    "test-SR.dcm",
    "waveform_ecg.dcm",
    "examples_overlay.dcm",
    "UN_sequence.dcm",
)
PIECES = {
    "byte by byte": 1,
    "in sevens": 7,
    "in PDUs of 4 KiB": 4096,
    "at random": None,
    "at once": 1 << 30,
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def data_set_of(path: Path) -> tuple[str, bytes]:
    """Return transfer syntax and data set of a Part 10 file."""
    with path.open("rb") as file:
        syntax = read_header(file).text(TRANSFER_SYNTAX)
        return syntax, file.read()


def pieces(data: bytes, size: int | None) -> Iterator[memoryview]:
    """Yield the data as it might come in."""
    view, at, chance = memoryview(data), 0, random.Random(1)
    while at < len(data):
        step = size or chance.randint(1, 20_000)
        yield view[at : at + step]
        at += step


def never(_: str = "") -> Callable[[], BinaryIO]:
    """Return an opener that must not be called."""

    def opened() -> BinaryIO:
        raise AssertionError("the data set was read a second time")

    return opened


def comparable(report: InstanceReport) -> dict[str, Any]:
    """Return a report without the moments it was made at."""
    found = dataclasses.asdict(report)
    for one in found["signatures"]:
        for name in ("path", "path_now"):
            if one[name] is not None:
                one[name] = one[name]["trusted"]
    return found


def streamed(data: bytes, syntax: str, size: int | None) -> SignatureStream:
    stream = SignatureStream(syntax)
    for piece in pieces(data, size):
        stream.update(piece)
    return stream


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", PIECES.values(), ids=PIECES)
def test_a_stream_says_what_a_file_says(
    site: Site, tmp_path: Path, name: str, size: int | None
) -> None:
    path = tmp_path / "signed.dcm"
    source = Path(str(get_testdata_file(name)))
    if name == "UN_sequence.dcm":  # nothing in it can be signed
        path = source
    else:
        site.sign(source, path, Order(BASE))
    syntax, data = data_set_of(path)
    if size == 1 and len(data) > 60_000:
        data_size: int | None = 3
    else:
        data_size = size
    report = site.verifier.verify_streamed(streamed(data, syntax, data_size), never(), syntax)
    assert comparable(report) == comparable(site.verifier.verify_file(path))
    assert [one.valid for one in report.signatures] == [True] * (path is not source)


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def test_every_region_that_goes_by_is_covered(site: Site, tmp_path: Path) -> None:
    """A bit in the head, in pixel data that are passed on, in what stands behind them."""
    site.sign(CT, tmp_path / "signed.dcm", Order(BASE))
    syntax, data = data_set_of(tmp_path / "signed.dcm")
    pixels = data.index(b"\xe0\x7f\x10\x00OW")
    head = data.index(b"CompressedSamples")
    trailer = data.index(b"\xfa\xff\xfa\xffSQ")
    uid = data.index(b"1.2.826", trailer)  # of the signature itself
    for at in (head, pixels + 12, pixels + 20_000, uid):
        stream = streamed(changed(data, at), syntax, 10_000)
        report = site.verifier.verify_streamed(
            stream, lambda at=at: io.BytesIO(changed(data, at)), syntax
        )
        assert [one.intact for one in report.signatures] == [False], at


GIVES_UP = {
    "a data set without explicit VRs": ("1.2.840.10008.1.2", b"\x08\x00\x05\x00\xf0\0\0\0ab"),
    "a deflated one": ("1.2.840.10008.1.2.1.99", b"no deflate stream"),
    "an element longer than what is kept, before the MAC parameters": (
        EXPLICIT, b"\x42\x00\x11\x00OB\0\0" + (KEPT + 2).to_bytes(4, "little"),
    ),
    "a sequence longer than what is kept": (
        EXPLICIT, b"\x00\x52\x30\x92SQ\0\0" + (KEPT + 2).to_bytes(4, "little"),
    ),
    "a sequence without end": (EXPLICIT, b"\x00\x52\x30\x92SQ\0\0\xff\xff\xff\xff"),
    "a value that breaks off": (
        EXPLICIT, b"\xe0\x7f\x10\x00OW\0\0" + LARGE.to_bytes(4, "little") + b"ab",
    ),
    "a fragment that is none": (
        EXPLICIT, b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xffnonsense",
    ),
    "no element at all": (EXPLICIT, b"\x08\x00\x05\x00??nonsense"),
}  # fmt: skip


@pytest.mark.parametrize(("syntax", "data"), GIVES_UP.values(), ids=GIVES_UP)
def test_what_a_stream_cannot_judge_is_read_from_where_it_lies(
    site: Site, syntax: str, data: bytes
) -> None:
    opened = []

    def body() -> BinaryIO:
        opened.append(True)
        return io.BytesIO(data)

    stream = streamed(data, syntax, 5)
    assert stream.finish() is None
    report = site.verifier.verify_streamed(stream, body, syntax)
    assert opened == [True]
    assert report.problem
    assert report.signatures == ()


def test_memory_stays_flat_however_much_goes_by() -> None:
    """Half a gibibyte of pixel data; what is kept is bounded by `KEPT`."""
    head = b"\x08\x00\x16\x00UI\x02\x001\0"
    length = 512 << 20
    stream = SignatureStream(EXPLICIT)
    stream.update(memoryview(head + b"\xe0\x7f\x10\x00OW\0\0" + length.to_bytes(4, "little")))
    piece = memoryview(bytes(1 << 20))
    for _ in range(512):
        stream.update(piece)
    assert len(stream._run) == 0
    assert stream._kept_size == len(head)
    found = stream.finish()
    assert found is not None
    assert found.levels == []


def test_mac_parameters_out_of_place_are_not_missed(site: Site, tmp_path: Path) -> None:
    """A sender that puts them behind the pixel data has not thereby taken these out."""
    site.sign(CT, tmp_path / "signed.dcm", Order(BASE))
    syntax, data = data_set_of(tmp_path / "signed.dcm")
    start, pixels = data.index(b"\xfe\x4f\x01\x00SQ"), data.index(b"\xe0\x7f\x10\x00OW")
    signatures = data.index(b"\xfa\xff\xfa\xffSQ")
    moved = data[:start] + data[pixels:signatures] + data[start:pixels] + data[signatures:]
    stream = streamed(moved, syntax, 10_000)
    report = site.verifier.verify_streamed(stream, lambda: io.BytesIO(moved), syntax)
    (one,) = report.signatures
    assert "wanted ascending tags" in one.problem
    assert not one.valid


def test_fragments_that_may_have_been_cut_elsewhere_are_a_remark_here_too(
    site: Site, tmp_path: Path
) -> None:
    """The tag of an item inside a fragment, wherever the pieces of the stream are cut."""
    source = tmp_path / "jpeg.dcm"
    content = Path(str(get_testdata_file("JPEG2000.dcm"))).read_bytes()
    at = content.index(b"\xff\x4f\xff\x51") + 60  # inside the code stream
    source.write_bytes(content[:at] + b"\xfe\xff\x00\xe0" + content[at + 4 :])
    site.sign(source, tmp_path / "signed.dcm", Order(BASE))
    syntax, data = data_set_of(tmp_path / "signed.dcm")
    for size in (1, 2, 3, 5, 7, 11, 4096, 1 << 20):
        report = site.verifier.verify_streamed(streamed(data, syntax, size), never(), syntax)
        (one,) = report.signatures
        assert one.valid
        assert any("cut elsewhere" in remark for remark in one.remarks), size
