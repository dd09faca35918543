"""What is kept, and what is refused with which status."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import threading
import warnings
import zlib
from pathlib import Path

import pydicom
import pytest

from dicom_secure_node.archive import Archive, Provenance, Stored
from dicom_secure_node.archive.provenance import is_uid, read_provenance
from dicom_secure_node.elements.part10 import read_header
from dicom_secure_node.elements.syntax import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable, StoreRefused
from tests import parts
from tests.archive.instances import (
    data_set,
    element,
    files,
    provenance,
    pydicom_data_sets,
    store,
    stored_bytes,
)

PYDICOM = {name: (data, source) for name, data, source in pydicom_data_sets()}

# What no Storage SCU sends, and the status that says so.
REFUSED = {
    "MR_truncated.dcm": 0xC000,
    "rtplan_truncated.dcm": 0xC000,
    "SC_rgb_jpeg.dcm": 0xC000,  # says explicit, is implicit
    "UN_sequence.dcm": 0xA900,  # without SOP Class UID, as are the next three
    "no_meta_group_length.dcm": 0xA900,
    "priv_SQ.dcm": 0xA900,
    "badVR.dcm": 0xA900,  # the File Meta Information names another instance, as in the next
    "rtdose.dcm": 0xA900,
    "rtdose_1frame.dcm": 0xA900,
    "rtdose_expb.dcm": 0xA900,
    "rtdose_expb_1frame.dcm": 0xA900,
    "rtplan.dcm": 0xA900,
} | {name: 0xA900 for name in PYDICOM if "DICOMDIR" in name}


def refused(archive: Archive, data: bytes, source: Provenance) -> int:
    """Return the status a data set is refused with."""
    before = files(archive.folder)
    with pytest.raises(StoreRefused) as caught:
        store(archive, data, source)
    assert files(archive.folder) == before
    assert list((archive.folder / "incoming").glob("*.part")) == []
    return caught.value.status


@pytest.mark.parametrize("name", PYDICOM)
def test_A3a_every_byte_of_real_files_is_kept(tmp_path: Path, name: str) -> None:
    data, source = PYDICOM[name]
    with Archive(tmp_path) as archive:
        if name in REFUSED:
            assert refused(archive, data, source) == REFUSED[name]
            return
        stored = store(archive, data, source, chunk=1000)
        assert stored.outcome == "new"
        assert stored_bytes(stored.path) == data
        assert stored.digest == hashlib.sha256(data).hexdigest()
        assert stored.size == len(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's opinions on the values
            ds = pydicom.dcmread(stored.path)
            assert ds.file_meta.TransferSyntaxUID == source.transfer_syntax
            assert ds.SOPInstanceUID == source.sop_instance
            assert stored.study == ds.get("StudyInstanceUID", "")
            assert stored.series == ds.get("SeriesInstanceUID", "")
            assert stored.patient_id == str(ds.get("PatientID", "") or "")
            assert stored.patient_name == str(ds.get("PatientName", "") or "")
            assert stored.accession == str(ds.get("AccessionNumber", "") or "")


def test_A3_dcmtk_accepts_what_is_kept(tmp_path: Path) -> None:
    with Archive(tmp_path) as archive:
        stored = store(archive, data_set(), provenance())
    dump = parts.run(["dcmdump", stored.path], check=True)
    assert "(0002,0016) AE [CT1]" in dump.stdout
    assert "(0010,0010) PN [Doe^Jane]" in dump.stdout
    assert parts.run(["dcmftest", stored.path]).stdout.startswith("yes: ")


def test_the_file_tells_where_it_came_from(tmp_path: Path) -> None:
    source = provenance()
    with Archive(tmp_path) as archive:
        stored = store(archive, data_set(), source)
    with stored.path.open("rb") as file:
        assert read_provenance(read_header(file)) == (source, stored.digest)


def test_the_body_can_be_read_before_it_is_kept(tmp_path: Path) -> None:
    data = data_set()
    with Archive(tmp_path) as archive:
        incoming = archive.receive(provenance())
        incoming.write(data[:100])
        incoming.write(memoryview(data)[100:])
        with incoming.open() as reader:
            assert reader.read() == data
        assert incoming.size == len(data)
        assert incoming.digest == hashlib.sha256(data).hexdigest()
        assert incoming.path.parent.name == "incoming"
        assert files(tmp_path) == []
        incoming.keep()
        incoming.abandon()
        assert len(files(tmp_path)) == 1


def test_what_is_abandoned_leaves_nothing(tmp_path: Path) -> None:
    with Archive(tmp_path) as archive:
        incoming = archive.receive(provenance())
        incoming.write(data_set())
        incoming.abandon()
        incoming.abandon()
        assert not incoming.path.exists()
        assert archive.counts().instances == 0


def test_a_refused_data_set_leaves_nothing(tmp_path: Path) -> None:
    with Archive(tmp_path) as archive:
        incoming = archive.receive(provenance())
        incoming.write(b"no data set")
        with pytest.raises(StoreRefused):
            incoming.keep()
        assert not incoming.path.exists()


def test_texts_are_indexed_in_their_character_set(tmp_path: Path) -> None:
    name = "Люкceмбypг"
    data = element(0x00080005, "CS", b"ISO_IR 144") + data_set(patient="")
    data = data.replace(
        element(0x00100010, "PN", b""), element(0x00100010, "PN", name.encode("iso8859-5"))
    )
    with Archive(tmp_path) as archive:
        assert store(archive, data, provenance()).patient_name == name
        assert archive.studies()[0].patient_name == name


def test_keys_behind_a_large_element_are_found(tmp_path: Path) -> None:
    whole = data_set()
    split = whole.index(element(0x00100010, "PN", b"Doe^Jane"))
    data = whole[:split] + element(0x00091001, "OB", bytes(300_000)) + whole[split:]
    with Archive(tmp_path) as archive:
        assert store(archive, data, provenance()).patient_name == "Doe^Jane"
        assert refused(archive, data[:-1] + b"", provenance("1.2.3.4")) == 0xC000


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


DEFLATED = provenance(transfer_syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)


def test_a_deflated_data_set_is_kept_as_it_is(tmp_path: Path) -> None:
    whole = data_set(pixels=bytes(5_000_000))
    split = whole.index(element(0x00100010, "PN", b"Doe^Jane"))
    data = deflated(whole[:split] + element(0x00091001, "OB", bytes(500_000)) + whole[split:])
    with Archive(tmp_path) as archive:
        stored = store(archive, data, DEFLATED)
        assert stored.patient_name == "Doe^Jane"
        assert stored_bytes(stored.path) == data


def test_a_deflated_bomb_is_refused(tmp_path: Path) -> None:
    data = element(0x00080005, "UT", b"").replace(bytes(4), b"\xf0\xff\xff\x7f")
    with Archive(tmp_path) as archive:
        assert refused(archive, deflated(data + bytes(100_000_000)), DEFLATED) == 0xC000


@pytest.mark.parametrize("data", [b"", b"\xff" * 50, deflated(data_set())[:40], deflated(b"")])
def test_what_does_not_inflate_to_a_data_set_is_refused(tmp_path: Path, data: bytes) -> None:
    with Archive(tmp_path) as archive:
        assert refused(archive, data, DEFLATED) in (0xC000, 0xA900)


CT = provenance()
WRONG = {
    "PS3.4 B.2.3 another SOP Instance UID": (data_set("1.2.3.5"), CT, 0xA900),
    "PS3.4 B.2.3 another SOP Class UID": (data_set(sop_class="1.2.3"), CT, 0xA900),
    "no SOP Instance UID": (data_set("").replace(element(0x00080018, "UI", b""), b""), CT, 0xA900),
    "an empty SOP Instance UID": (data_set(""), CT, 0xA900),
    "nothing": (b"", CT, 0xA900),
    "one byte less": (data_set()[:-1], CT, 0xC000),
    "one byte more": (data_set() + b"\0", CT, 0xC000),
    "no data set": (b"GET / HTTP/1.1\r\n\r\n", CT, 0xC000),
    "two SOP Instance UIDs": (
        data_set().replace(
            element(0x00080018, "UI", b"1.2.3.4"),
            element(0x00080018, "UI", b"1.2.3.4") + element(0x00080018, "UI", b"1.2.3.5"),
        ),
        CT,
        0xC000,
    ),
    "another transfer syntax": (
        data_set(),
        dataclasses.replace(CT, transfer_syntax="1.2.840.10008.1.2.2"),
        0xC000,
    ),
}


@pytest.mark.parametrize(("data", "source", "status"), WRONG.values(), ids=WRONG)
def test_P4_B2_1_what_does_not_fit_is_refused(
    tmp_path: Path, data: bytes, source: Provenance, status: int
) -> None:
    with Archive(tmp_path) as archive:
        assert refused(archive, data, source) == status
        assert archive.counts().instances == 0


@pytest.mark.parametrize("padding", [b"", b"\0", b" ", b"\0\0"])
def test_P5_9_1_padding_of_a_UID_does_not_count(tmp_path: Path, padding: bytes) -> None:
    good = element(0x00080018, "UI", b"1.2.3.44")
    value = b"1.2.3.44" + padding
    head = good[:6] + len(value).to_bytes(2, "little")
    data = data_set("1.2.3.44").replace(good, head + value)
    with Archive(tmp_path) as archive:
        assert store(archive, data, provenance("1.2.3.44")).outcome == "new"


HOSTILE = {
    "empty": "",
    "up and away": "../../../../etc/passwd",
    "dots": "..",
    "absolute": "/etc/passwd",
    "NUL": "1.2.3\0.4",
    "line feed": "1.2.3\n",
    "65 characters": "1." * 32 + "1",
    "ten thousand characters": "1.1" * 10_000,
    "Arabic digits": "1.٢.3",
    "superscripts": "1.²",
    "emoji": "1.2.😀",
    "surrogate": "1.2.\ud800",
    "backslash": "1.2\\..\\3",
    "two dots": "1..2",
    "a dot first": ".1.2",
    "a dot last": "1.2.",
    "minus": "1.-2",
    "space": "1. 2",
    "SQL": "1'; DROP TABLE instance; --",
    "percent": "1.%2e%2e",
}


@pytest.mark.parametrize("uid", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("where", ["sop_instance", "sop_class", "transfer_syntax"])
def test_P5_9_1_no_hostile_UID_of_the_command_gets_in(tmp_path: Path, uid: str, where: str) -> None:
    assert not is_uid(uid)
    with Archive(tmp_path / "home" / "archive") as archive:
        with pytest.raises(StoreRefused) as caught:
            archive.receive(dataclasses.replace(provenance(), **{where: uid}))
        assert caught.value.status == 0xC000
        assert uid == "" or uid not in str(caught.value)
        assert files(archive.folder) == []
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("uid", HOSTILE.values(), ids=HOSTILE)
def test_hostile_UIDs_of_the_data_set_are_only_text(tmp_path: Path, uid: str) -> None:
    study = uid.encode("utf-8", "replace").decode("latin-1")
    if len(study) > 1000:  # the encoding of the test's data set is for less
        study = study[:1000]
    data = data_set().replace(
        element(0x0020000D, "UI", b"1.2.3"), element(0x0020000D, "UI", study.encode("latin-1"))
    )
    with Archive(tmp_path / "home" / "archive") as archive:
        stored = store(archive, data, provenance())
        assert stored.path.is_relative_to(archive.folder / "instances")
        assert len(archive.studies()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("uid", ["1", "1.02.3", "0.0", "1." * 31 + "12", "2.25." + "9" * 39])
def test_UIDs_of_field_products_get_in(tmp_path: Path, uid: str) -> None:
    with Archive(tmp_path) as archive:
        stored = store(archive, data_set(uid), provenance(uid))
        assert re.fullmatch(r"[0-9a-f]{64}\.dcm", stored.path.name)
        assert [e.sop_instance for e in archive.find(uid)] == [uid]


def again(archive: Archive, pixels: bytes) -> Stored:
    return store(archive, data_set(pixels=pixels), provenance())


def test_same_only_takes_the_same_bytes_and_no_others(tmp_path: Path) -> None:
    with Archive(tmp_path) as archive:
        first = again(archive, b"1111")
        second = again(archive, b"1111")
        assert (first.outcome, second.outcome) == ("new", "same")
        assert first.path == second.path
        assert refused(archive, data_set(pixels=b"2222"), provenance()) == 0x0111
        assert stored_bytes(first.path) == data_set(pixels=b"1111")
        assert len(archive.find("1.2.3.4")) == 1


def test_the_same_bytes_in_another_transfer_syntax_are_other_bytes(tmp_path: Path) -> None:
    with Archive(tmp_path) as archive:
        store(archive, data_set(), provenance())
        other = provenance(transfer_syntax="1.2.840.10008.1.2.4.70")
        assert refused(archive, data_set(), other) == 0x0111


def test_refuse_takes_nothing_twice(tmp_path: Path) -> None:
    with Archive(tmp_path, duplicates="refuse") as archive:
        assert again(archive, b"1111").outcome == "new"
        assert refused(archive, data_set(pixels=b"1111"), provenance()) == 0x0111
        assert refused(archive, data_set(pixels=b"2222"), provenance()) == 0x0111


def test_version_keeps_other_bytes_beside_the_first(tmp_path: Path) -> None:
    with Archive(tmp_path, duplicates="version") as archive:
        stored = [again(archive, pixels) for pixels in (b"1111", b"2222", b"3333", b"2222")]
        assert [s.outcome for s in stored] == ["new", "version", "version", "same"]
        assert [s.version for s in stored] == [1, 2, 3, 2]
        for s, pixels in zip(stored, (b"1111", b"2222", b"3333"), strict=False):
            assert stored_bytes(s.path) == data_set(pixels=pixels)
        assert [e.version for e in archive.find("1.2.3.4")] == [1, 2, 3]
        assert [e.digest for e in archive.find("1.2.3.4")] == [s.digest for s in stored[:3]]


def test_a_damaged_first_is_not_the_same_and_is_not_overwritten(tmp_path: Path) -> None:
    with Archive(tmp_path) as archive:
        stored = again(archive, b"1111")
        stored.path.write_bytes(b"")
        with pytest.raises(StoreRefused) as caught:
            again(archive, b"1111")
        assert caught.value.status == 0x0111
        assert stored.path.read_bytes() == b""


@pytest.mark.parametrize("duplicates", ["same-only", "refuse", "version"])
def test_of_many_at_once_exactly_one_is_new(tmp_path: Path, duplicates: str) -> None:
    """Eight threads send one UID, half of them other bytes."""
    results: list[str] = []
    barrier = threading.Barrier(8)

    def send(number: int) -> None:
        incoming = archive.receive(provenance(association_id=str(number)))
        incoming.write(data_set(pixels=b"%04d" % (number % 2)))
        barrier.wait()
        try:
            results.append(incoming.keep().outcome)
        except StoreRefused as exc:
            results.append(f"0x{exc.status:04X}")

    with Archive(tmp_path, duplicates=duplicates) as archive:  # type: ignore[arg-type]
        threads = [threading.Thread(target=send, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wanted = {
            "same-only": ["0x0111"] * 4 + ["new"] + ["same"] * 3,
            "refuse": ["0x0111"] * 7 + ["new"],
            "version": ["new"] + ["same"] * 6 + ["version"],
        }
        assert sorted(results) == wanted[duplicates]
        assert (
            len(files(tmp_path))
            == len(archive.find("1.2.3.4"))
            == results.count("new") + results.count("version")
        )


def test_an_unknown_policy_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'overwrite', wanted one of same-only"):
        Archive(tmp_path, duplicates="overwrite")  # type: ignore[arg-type]


def test_an_archive_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(ServiceUnavailable, match="Not a directory"):
        Archive(tmp_path / "a")


def test_too_little_free_space_refuses_at_the_start(tmp_path: Path) -> None:
    with Archive(tmp_path, minimum_free=1 << 60) as archive:
        with pytest.raises(StoreRefused) as caught:
            archive.receive(provenance())
        assert caught.value.status == 0xA700


def test_nothing_of_the_patient_is_in_a_repr(tmp_path: Path) -> None:
    with Archive(tmp_path) as archive:
        stored = store(archive, data_set(), provenance())
        (entry,) = archive.find("1.2.3.4")
        (unaudited,) = archive.unaudited()
        for thing in (stored, entry, unaudited, archive.studies()[0]):
            assert "Doe" not in repr(thing)
            assert "P-1" not in repr(thing)
            assert "ACC1" not in repr(thing)


def test_files_are_not_for_everybody(tmp_path: Path) -> None:
    with Archive(tmp_path / "a") as archive:
        stored = store(archive, data_set(), provenance())
        for path in (stored.path, *(tmp_path / "a").glob("index.sqlite*")):
            assert path.stat().st_mode & 0o007 == 0, path
        assert (tmp_path / "a").stat().st_mode & 0o007 == 0
