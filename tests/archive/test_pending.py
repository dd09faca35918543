"""Rows follow their files: soon, all of them, and never more than the index can take."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_secure_node.archive import Archive
from dicom_secure_node.archive.index import Index
from dicom_secure_node.archive.keys import Keys
from dicom_secure_node.archive.pending import PendingRows
from dicom_secure_node.archive.rebuild import entry_of
from dicom_secure_node.errors import StoreRefused
from tests.archive.instances import data_set, provenance
from tests.parts import wait_until

KEYS = Keys("1.2", "1.2.3", "1.2.4", "1.2.5", "CT", "", "", "", "", "")


def keep(archive: Archive, instance: str) -> None:
    incoming = archive.receive(provenance(instance))
    try:
        incoming.write(data_set(instance))
        incoming.keep()
    finally:
        incoming.abandon()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(tmp_path / "archive", minimum_free=0) as opened:
        yield opened


def in_the_file(archive: Archive) -> set[str]:
    """Return the instances another process would see."""
    with closing(sqlite3.connect(archive.folder / "index.sqlite")) as database:
        return {uid for (uid,) in database.execute("SELECT sop_instance FROM instance")}


def test_who_reads_the_archive_sees_every_instance_that_was_kept(archive: Archive) -> None:
    for number in range(20):
        keep(archive, f"1.2.{number}")
        assert archive.find(f"1.2.{number}")
    assert archive.counts().instances == 20


def test_other_processes_see_it_a_moment_later(archive: Archive) -> None:
    wanted = {f"1.2.{number}" for number in range(50)}
    for uid in wanted:
        keep(archive, uid)
    wait_until(lambda: in_the_file(archive) == wanted, "the rows are in the file")


def test_an_index_that_cannot_be_written_refuses_the_next_instances(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost by it: the rows wait, and there are no more and more of them."""
    archive._index._database.execute("PRAGMA query_only = ON")
    keep(archive, "1.2.1")  # nobody can know yet
    wait_until(lambda: archive._rows.in_trouble, "the writer has noticed")
    for _ in range(3):
        with pytest.raises(StoreRefused, match="archive index: attempt to write") as refused:
            keep(archive, "1.2.2")
        assert refused.value.status == 0xA700
    assert "rows are kept until the index can be written" in caplog.text
    archive._index._database.execute("PRAGMA query_only = OFF")
    keep(archive, "1.2.3")
    assert [bool(archive.find(uid)) for uid in ("1.2.1", "1.2.2", "1.2.3")] == [True] * 3


def test_a_row_the_index_cannot_hold_ends_neither_the_writer_nor_the_archive(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No plug-in lets such a name through; were there one, it would be refused in words."""
    with Archive(tmp_path / "archive", minimum_free=0) as archive:
        incoming = archive.receive(replace(provenance("1.2.1"), identity="\ud800"))
        incoming.write(data_set("1.2.1"))
        incoming.keep()
        wait_until(lambda: archive._rows.in_trouble, "the writer has noticed")
        with pytest.raises(StoreRefused, match="archive index: UnicodeEncodeError") as refused:
            keep(archive, "1.2.2")
        assert refused.value.status == 0xA700
        assert archive._rows._writer is not None
        assert archive._rows._writer.is_alive()
    assert "the next start adds what the index lacks" in caplog.text


def test_an_instance_that_comes_after_the_end_is_refused_and_not_forgotten(tmp_path: Path) -> None:
    """Its file may be there, without a row, and the next start does not look for such."""
    with Archive(tmp_path / "archive", minimum_free=0) as archive:
        incoming = archive.receive(provenance("1.2.1"))
        incoming.write(data_set("1.2.1"))
    with pytest.raises(StoreRefused, match="closed") as refused:
        incoming.keep()
    assert refused.value.status == 0xA700
    with Archive(tmp_path / "archive", minimum_free=0) as again:
        keep(again, "1.2.1")
        assert again.find("1.2.1")


def test_many_threads_add_and_nothing_is_lost(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite")
    rows = PendingRows(index)

    def add(lane: int) -> None:
        for number in range(300):
            uid = f"1.2.{lane}.{number}"
            rows.add(entry_of(provenance(uid), KEYS, version=1, size=10, digest="d"))

    threads = [threading.Thread(target=add, args=(lane,)) for lane in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows.close()
    assert index.counts().instances == 1200
    index.close()


def test_after_the_end_the_rows_are_there(tmp_path: Path) -> None:
    with Archive(tmp_path, minimum_free=0) as archive:
        keep(archive, "1.2.1")
    assert in_the_file(archive) == {"1.2.1"}
