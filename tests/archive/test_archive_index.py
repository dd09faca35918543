"""The index: what it tells, that it can be made anew, and that old ones are brought up to date."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_secure_node.archive import Archive
from dicom_secure_node.archive.index import MIGRATIONS, Counts, Index
from dicom_secure_node.archive.rebuild import rebuild_index
from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable, StoreRefused
from tests.archive.instances import (
    CT_STORAGE,
    data_set,
    files,
    provenance,
    pydicom_data_sets,
    store,
)

MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
PROGRAM = Path(__file__).with_name("storing.py")


def rows(path: Path) -> list[tuple[object, ...]]:
    database = sqlite3.connect(path)
    try:
        return database.execute("SELECT * FROM instance ORDER BY path").fetchall()
    finally:
        database.close()


def fill(archive: Archive) -> None:
    """Two studies by two associations, one of them with two kinds of instances."""
    for number, (study, association, sop_class) in enumerate(
        [
            ("1.2.1", "a1", CT_STORAGE),
            ("1.2.1", "a1", CT_STORAGE),
            ("1.2.1", "a1", MR_STORAGE),
            ("1.2.2", "a1", CT_STORAGE),
            ("1.2.1", "a2", CT_STORAGE),
        ]
    ):
        uid = f"1.2.3.4.{number}"
        store(
            archive,
            data_set(uid, study=study, sop_class=sop_class),
            provenance(uid, association_id=association, sop_class=sop_class),
        )


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of all that pydicom has, versions included."""
    folder = tmp_path_factory.mktemp("full")
    with Archive(folder, duplicates="version") as archive:
        for _, data, source in pydicom_data_sets():
            try:
                store(archive, data, source)
            except StoreRefused:
                continue
        assert archive.counts().instances > 100
    return folder


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(tmp_path / "archive") as archive:
        yield archive


def test_a_row_tells_all_that_is_known(archive: Archive) -> None:
    stored = store(archive, data_set(), provenance())
    (entry,) = archive.find("1.2.3.4")
    assert dataclasses.asdict(entry) == {
        "sop_instance": "1.2.3.4",
        "version": 1,
        "sop_class": CT_STORAGE,
        "study": "1.2.3",
        "series": "1.2.3.1",
        "modality": "CT",
        "study_date": "20240229",
        "study_description": "Thorax",
        "accession": "ACC1",
        "patient_id": "P-1",
        "patient_name": "Doe^Jane",
        "path": str(stored.path.relative_to(archive.folder)),
        "size": stored.size,
        "digest": stored.digest,
        "transfer_syntax": "1.2.840.10008.1.2.1",
        "calling_ae": "CT1",
        "called_ae": "ARCHIVE",
        "peer_address": "10.0.0.5",
        "peer_subject": "CN=ct1,O=Hospital",
        "tls": {"version": "TLSv1.3", "suite": "TLS_AES_128_GCM_SHA256", "group": "x25519"},
        "identity": "ada",
        "association_id": "a1",
        "listener": "tls",
        "received_at": datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC),
        "audited": False,
        "findings": None,
    }


def test_findings_of_the_gates_are_in_the_row_and_stay_there(archive: Archive) -> None:
    incoming = archive.receive(provenance())
    incoming.write(data_set())
    incoming.findings = {"signatures": {"valid": True}}
    incoming.keep()
    assert archive.find("1.2.3.4")[0].findings == {"signatures": {"valid": True}}
    archive.rebuild()  # they are not in the file
    assert archive.find("1.2.3.4")[0].findings == {"signatures": {"valid": True}}


def test_findings_join_a_row_that_another_process_has_made_of_the_file(archive: Archive) -> None:
    fill(archive)
    (known,) = archive.find("1.2.3.4.1")
    late = dataclasses.replace(known, findings={"signatures": {"valid": True}}, modality="XX")
    other = dataclasses.replace(late, association_id="another", findings={"signatures": {}})
    archive.mark_audited(known.association_id)
    index = Index(archive.folder / "index.sqlite")
    index.add([other])
    assert archive.find("1.2.3.4.1")[0].findings is None, "of other bytes, perhaps"
    index.add([late])
    index.add([other])
    index.close()
    (row,) = archive.find("1.2.3.4.1")
    assert row == dataclasses.replace(known, findings=late.findings, audited=True)


def test_what_is_not_known_is_none(archive: Archive) -> None:
    source = dataclasses.replace(provenance(), peer_subject=None, tls=None, identity=None)
    store(archive, data_set(), source)
    (entry,) = archive.find("1.2.3.4")
    assert (entry.peer_subject, entry.tls, entry.identity) == (None, None, None)


def test_an_unknown_instance_is_not_found(archive: Archive) -> None:
    assert archive.find("1.2.3") == ()


def test_counts_and_studies(archive: Archive) -> None:
    assert archive.counts() == Counts(0, 0, 0, 0, 0)
    fill(archive)
    counts = archive.counts()
    assert (counts.patients, counts.studies, counts.series, counts.instances) == (1, 2, 2, 5)
    assert {s.study: s.instances for s in archive.studies()} == {"1.2.1": 4, "1.2.2": 1}
    assert sorted(archive.paths()) == files(archive.folder)


def test_what_was_not_audited_is_told_by_association_and_study(archive: Archive) -> None:
    fill(archive)
    groups = list(archive.unaudited())
    assert [(g.association_id, g.study, g.instances) for g in groups] == [
        ("a1", "1.2.1", 3),
        ("a1", "1.2.2", 1),
        ("a2", "1.2.1", 1),
    ]
    assert groups[0].sop_classes == {CT_STORAGE: 2, MR_STORAGE: 1}
    assert groups[0].first.patient_id == "P-1"
    assert groups[0].first.calling_ae == "CT1"
    archive.mark_audited("a1")
    assert [g.association_id for g in archive.unaudited()] == ["a2"]
    assert archive.find("1.2.3.4.0")[0].audited


def test_marking_while_telling_is_fine(archive: Archive) -> None:
    fill(archive)
    for group in archive.unaudited():
        archive.mark_audited(group.association_id)
    assert list(archive.unaudited()) == []


def test_an_index_made_anew_equals_the_old_one(full: Path, tmp_path: Path) -> None:
    old = rows(full / "index.sqlite")
    read: list[int] = []
    rebuilt = rebuild_index(full, tmp_path / "new.sqlite", read.append)
    assert (rebuilt.read, rebuilt.removed, rebuilt.unreadable) == (len(old), 0, ())
    assert read[-1] == len(old)
    # Without the old index, audits are taken for done.
    assert rows(tmp_path / "new.sqlite") == [(*row[:-2], 1, None) for row in old]


def test_a_lost_index_is_made_anew_when_the_archive_is_opened(full: Path, tmp_path: Path) -> None:
    home = shutil.copytree(full, tmp_path / "copy")
    old = rows(home / "index.sqlite")
    (home / "index.sqlite").unlink()
    with Archive(home) as archive:
        assert archive.counts().instances == len(old)
        assert list(archive.unaudited()) == []


def test_a_rebuild_keeps_what_is_known_of_audits(archive: Archive) -> None:
    fill(archive)
    archive.mark_audited("a1")
    before = rows(archive.folder / "index.sqlite")
    assert archive.rebuild().read == 5
    assert rows(archive.folder / "index.sqlite") == before


def test_a_rebuild_mends_rows_and_removes_those_without_file(archive: Archive) -> None:
    fill(archive)
    assert archive.counts().instances == 5, "the rows are in the file"
    before = rows(archive.folder / "index.sqlite")
    database = sqlite3.connect(archive.folder / "index.sqlite")
    database.execute("UPDATE instance SET patient_name = 'X', digest = 'X' WHERE study = '1.2.2'")
    database.execute(
        "INSERT INTO instance SELECT 'gone', version, sop_class, study, series, modality, "
        "study_date, study_description, accession, patient_id, patient_name, "
        "'instances/zz/gone.dcm', size, digest, transfer_syntax, calling_ae, called_ae, "
        "peer_address, peer_subject, tls, identity, association_id, listener, received_at, "
        "audited, findings FROM instance LIMIT 1"
    )
    database.commit()
    database.close()
    assert [v.problem for v in archive.check() if v.problem] != []
    assert archive.rebuild().removed == 1
    assert rows(archive.folder / "index.sqlite") == before


def test_unreadable_files_are_left_out_and_left_alone(archive: Archive) -> None:
    fill(archive)
    first, second, third, *_ = files(archive.folder)
    first.write_bytes(b"")
    second.write_bytes(third.read_bytes())  # whole, but under another's name
    rebuilt = archive.rebuild()
    assert rebuilt.read == 3
    assert sorted(rebuilt.unreadable) == sorted(
        str(p.relative_to(archive.folder)) for p in (first, second)
    )
    assert len(files(archive.folder)) == 5


def test_foreign_files_are_not_touched(archive: Archive) -> None:
    fill(archive)
    foreign = archive.folder / "instances" / "00" / "README.txt"
    foreign.write_text("hello")
    assert archive.rebuild().unreadable == ()
    assert all(not v.problem for v in archive.check())
    assert foreign.exists()


def test_a_damaged_index_is_named_and_can_be_made_anew(full: Path, tmp_path: Path) -> None:
    home = shutil.copytree(full, tmp_path / "copy")
    old = rows(home / "index.sqlite")
    (home / "index.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(ServiceUnavailable, match="archive index: file is not a database"):
        Archive(home)
    rebuild_index(home, home / "index.sqlite")
    assert len(rows(home / "index.sqlite")) == len(old)
    assert (home / "index.sqlite.damaged").exists()
    with Archive(home) as archive:
        assert archive.counts().instances == len(old)


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_an_older_schema_is_brought_up_to_date(full: Path, tmp_path: Path, version: int) -> None:
    path = tmp_path / "old.sqlite"
    database = sqlite3.connect(path)
    for script in MIGRATIONS[:version]:
        database.executescript(script)
    database.execute(f"PRAGMA user_version = {version}")
    database.execute(f"ATTACH '{full / 'index.sqlite'}' AS full")
    columns = ", ".join(row[1] for row in database.execute("PRAGMA main.table_info(instance)"))
    database.execute(f"INSERT INTO instance ({columns}) SELECT {columns} FROM full.instance")  # noqa: S608
    database.commit()
    database.close()
    Index(path).close()
    assert rows(path) == rows(full / "index.sqlite")
    old, new = (sqlite3.connect(p) for p in (path, full / "index.sqlite"))
    for question in ("PRAGMA user_version", "SELECT sql FROM sqlite_master ORDER BY name"):
        assert old.execute(question).fetchall() == new.execute(question).fetchall()
    old.close()
    new.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    database = sqlite3.connect(path)
    database.executescript(MIGRATIONS[0])
    database.execute("CREATE INDEX instance_unaudited ON instance (study)")  # in the way
    database.execute("PRAGMA user_version = 1")
    database.commit()
    database.close()
    with pytest.raises(ServiceUnavailable, match="already exists"):
        Index(path)
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA user_version").fetchone() == (1,)
    names = database.execute("SELECT name FROM sqlite_master WHERE name = 'instance_study'")
    assert names.fetchall() == []
    database.close()


def test_an_index_of_a_newer_release_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(ConfigurationError, match=r"new\.sqlite: found schema 99"):
        Index(path)


def test_two_processes_share_an_archive(tmp_path: Path) -> None:
    """One is in the middle of a data set while the other opens, stores, and closes."""
    folder = tmp_path / "archive"
    argv = [sys.executable, str(PROGRAM), str(folder), "100", "20"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        for line in other.stdout:
            if line == "half 100\n":
                break
        with Archive(folder) as archive:
            fill(archive)
            archive.rebuild()
        rest = other.stdout.read()
        assert other.wait() == 0
    assert rest.count("kept") == 20
    with Archive(folder) as archive:
        assert archive.counts().instances == len(files(folder)) == 25


def test_a_rebuild_does_not_disturb_receipt(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    argv = [sys.executable, str(PROGRAM), str(folder), "100", "30", "8"]
    with (
        Archive(folder) as archive,
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as other,
    ):
        assert other.stdout is not None
        while other.poll() is None:
            archive.rebuild()
        assert other.stdout.read().count("kept") == 30
        archive.rebuild()
        assert archive.counts().instances == 30
        assert sum(group.instances for group in archive.unaudited()) == 30


def test_the_index_can_be_elsewhere(tmp_path: Path) -> None:
    with Archive(tmp_path / "archive", index=tmp_path / "fast.sqlite") as archive:
        fill(archive)
    assert len(rows(tmp_path / "fast.sqlite")) == 5
    assert not (tmp_path / "archive" / "index.sqlite").exists()


MEMORY = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from dicom_secure_node.archive import Archive
from tests.archive.instances import data_set, element, provenance
piece = bytes(1 << 20)
with Archive(Path(sys.argv[1])) as archive:
    def used():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    def store(uid, mebibytes):
        incoming = archive.receive(provenance(uid))
        head = data_set(uid, pixels=b"")
        incoming.write(head[:-4] + (mebibytes << 20).to_bytes(4, "little"))
        for _ in range(mebibytes):
            incoming.write(piece)
        return incoming.keep().size
    store("1.1", 1)
    before = used()
    assert store("1.2", 300) > 300 << 20
    print(used() - before)
"""


def test_memory_is_flat_in_the_size_of_an_instance(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), str(root)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 8192  # KiB
