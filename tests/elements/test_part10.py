"""The File Meta Information: ours is read by others, others' is read by us."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import pydicom
import pydicom.data
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.elements.part10 import (
    GROUP_LENGTH,
    MEDIA_STORAGE_SOP_INSTANCE,
    PRIVATE_INFORMATION,
    RECEIVING_AE,
    SENDING_AE,
    SOURCE_AE,
    TRANSFER_SYNTAX,
    FileMeta,
    encode_header,
    read_header,
)
from dicom_secure_node.errors import InvalidDataSet
from tests import parts

FILES = Path(pydicom.data.__file__).parent / "test_files"
META = FileMeta(
    sop_class="1.2.840.10008.5.1.4.1.1.2",
    sop_instance="1.2.3.4",
    transfer_syntax="1.2.840.10008.1.2.1",
    implementation_class="1.2.3",
    implementation_version="TEST",
    source_ae="CT1",
    sending_ae="CT1",
    receiving_ae="ARCHIVE",
    private_creator="1.2.3.9",
    private_information=b'{"a":1} ',
)
DATA_SET = b"\x08\0\x16\0UI\x1a\x001.2.840.10008.5.1.4.1.1.2\0" + b"\x08\0\x18\0UI\x08\x001.2.3.4\0"


def test_P10_7_1_the_header_reads_back() -> None:
    file = io.BytesIO(encode_header(META) + DATA_SET)
    header = read_header(file)
    assert file.read() == DATA_SET
    assert header.text(MEDIA_STORAGE_SOP_INSTANCE) == "1.2.3.4"
    assert header.text(TRANSFER_SYNTAX) == META.transfer_syntax
    assert header.text(RECEIVING_AE) == "ARCHIVE"
    assert header.values[PRIVATE_INFORMATION] == META.private_information


def test_P10_7_1_the_group_length_is_right() -> None:
    encoded = encode_header(META)
    header = read_header(io.BytesIO(encoded))
    length = int.from_bytes(header.values[GROUP_LENGTH], "little")
    assert 128 + 4 + 12 + length == len(encoded) == header.offset


def test_pydicom_reads_it() -> None:
    ds = pydicom.dcmread(io.BytesIO(encode_header(META) + DATA_SET))
    assert ds.preamble == bytes(128)
    assert ds.file_meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert ds.file_meta.FileMetaInformationVersion == b"\0\1"
    assert ds.file_meta.SourceApplicationEntityTitle == "CT1"
    assert ds.file_meta.ReceivingApplicationEntityTitle == "ARCHIVE"
    assert ds.file_meta.PrivateInformation == META.private_information
    assert ds.SOPInstanceUID == "1.2.3.4"


def test_dcmtk_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(encode_header(META) + DATA_SET)
    assert parts.run(["dcmftest", path]).stdout.startswith("yes: ")
    dump = parts.run(["dcmdump", "-q", path], check=True)
    assert "(0002,0018) AE [ARCHIVE]" in dump.stdout
    assert dump.stderr == ""


TITLES = {
    "": "",
    "A": "A",
    " padded ": "padded",
    "SEVENTEEN-LETTERS": "SEVENTEEN-LETTER",
    "back\\slash": "backslash",
    "line\nfeed\0": "linefeed",
    "Röntgen": "Rntgen",
    "\x7f\x80\ud800": "",
}


@pytest.mark.parametrize(("title", "written"), TITLES.items(), ids=map(ascii, TITLES))
def test_P5_6_2_only_what_an_AE_title_may_hold_is_written(title: str, written: str) -> None:
    meta = FileMeta("1.2", "1.3", "1.4", "1.5", "T", source_ae=title, sending_ae=title)
    header = read_header(io.BytesIO(encode_header(meta) + DATA_SET))
    assert header.text(SOURCE_AE) == header.text(SENDING_AE) == written
    assert (SOURCE_AE in header.values) == bool(written)
    assert len(header.values.get(SOURCE_AE, b"")) % 2 == 0


@pytest.mark.parametrize("path", sorted(FILES.rglob("*")), ids=lambda p: str(p.relative_to(FILES)))
def test_real_files_begin_their_data_set_where_pydicom_says(path: Path) -> None:
    if path.is_dir():
        return
    with path.open("rb") as file:
        file.seek(128)
        is_part10 = file.read(4) == b"DICM"
        file.seek(0)
        if not is_part10:
            with pytest.raises(InvalidDataSet, match=r"PS3\.10 7\.1"):
                read_header(file)
            return
        header = read_header(file)
        assert file.tell() == header.offset
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")
        file.seek(132)
        meta = pydicom.filereader._read_file_meta_info(file)
        assert header.offset == file.tell()
        assert header.text(TRANSFER_SYNTAX) == str(meta.get("TransferSyntaxUID", ""))


def test_a_deflated_data_set_may_begin_like_group_2() -> None:
    meta = FileMeta("1.2", "1.3", "1.2.840.10008.1.2.1.99", "1.5", "T")
    encoded = encode_header(meta)
    file = io.BytesIO(encoded + b"\x02\0" + b"\xff" * 100)
    assert read_header(file).offset == len(encoded)


def test_a_header_larger_than_the_first_read() -> None:
    meta = FileMeta("1.2", "1.3", "1.4", "1.5", "T", "", "", "", "1.6", b" " * 1_000_000)
    file = io.BytesIO(encode_header(meta) + DATA_SET)
    assert len(read_header(file).values[PRIVATE_INFORMATION]) == 1_000_000
    assert file.read() == DATA_SET


def test_the_header_is_bounded() -> None:
    meta = FileMeta("1.2", "1.3", "1.4", "1.5", "T", "", "", "", "1.6", b" " * 5_000_000)
    with pytest.raises(InvalidDataSet):
        read_header(io.BytesIO(encode_header(meta) + bytes(50_000_000)))


def test_a_file_that_ends_with_its_header_has_an_empty_data_set() -> None:
    file = io.BytesIO(encode_header(META))
    assert read_header(file).offset == len(encode_header(META))
    assert file.read() == b""


@pytest.mark.parametrize("length", [0, 100, 131, 132, 140, 200])
def test_a_file_that_breaks_off_is_refused(length: int) -> None:
    whole = encode_header(META)
    if length == 132:  # no element at all: an empty header
        assert read_header(io.BytesIO(whole[:length])).values == {}
        return
    with pytest.raises(InvalidDataSet):
        read_header(io.BytesIO(whole[:length]))


@given(st.binary(max_size=200))
def test_random_bytes_raise_invalid_data_set_and_nothing_else(data: bytes) -> None:
    for start in (b"", bytes(128) + b"DICM", encode_header(META)[:-9]):
        with contextlib.suppress(InvalidDataSet):
            read_header(io.BytesIO(start + data))


TWO_WAYS = {
    "a transfer syntax twice, for who takes the first": b"\2\0\x10\0UI\2\x001\0" * 2,
    "a value of undefined length": b"\2\0\1\0OB\0\0\xff\xff\xff\xff\xfe\xff\xdd\xe0\0\0\0\0",
}


@pytest.mark.parametrize("group", TWO_WAYS.values(), ids=TWO_WAYS)
def test_a_header_that_two_readers_read_differently_is_refused(group: bytes) -> None:
    with pytest.raises(InvalidDataSet, match=r"\(0002,00[01][01]\) at byte 1\d\d: found an "):
        read_header(io.BytesIO(bytes(128) + b"DICM" + group + DATA_SET))
