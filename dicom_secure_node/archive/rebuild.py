"""Bring the index of an archive into agreement with its files."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dicom_secure_node.archive.index import Entry, Index, is_damaged
from dicom_secure_node.archive.keys import Keys, read_file
from dicom_secure_node.archive.layout import folders, path_of, paths_in, version_of
from dicom_secure_node.archive.provenance import Provenance
from dicom_secure_node.errors import InvalidDataSet

_BATCH = 500  # rows in one transaction: a running node waits no longer than this for its turn

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rebuilt:
    """What a comparison of index and files led to.

    Attributes
    ----------
    read : int
        Files whose row was written.
    removed : int
        Rows whose file is gone.
    unreadable : tuple of str
        Paths, relative to the archive, of files that are not in the index because they
        cannot be read. They are left where they are.
    """

    read: int
    removed: int
    unreadable: tuple[str, ...]


def entry_of(
    provenance: Provenance,
    keys: Keys,
    *,
    version: int,
    size: int,
    digest: str,
    findings: Mapping[str, Any] | None = None,
) -> Entry:
    """Return the row of an instance."""
    return Entry(
        sop_instance=provenance.sop_instance,
        version=version,
        sop_class=provenance.sop_class,
        study=keys.study,
        series=keys.series,
        modality=keys.modality,
        study_date=keys.study_date,
        study_description=keys.study_description,
        accession=keys.accession,
        patient_id=keys.patient_id,
        patient_name=keys.patient_name,
        path=path_of(provenance.sop_instance, version),
        size=size,
        digest=digest,
        transfer_syntax=provenance.transfer_syntax,
        calling_ae=provenance.calling_ae,
        called_ae=provenance.called_ae,
        peer_address=provenance.peer_address,
        peer_subject=provenance.peer_subject,
        tls=provenance.tls,
        identity=provenance.identity,
        association_id=provenance.association_id,
        listener=provenance.listener,
        received_at=provenance.received_at,
        findings=findings,
    )


def compare(
    archive: Path,
    index: Index,
    *,
    everything: bool = False,
    audited: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Rebuilt:
    """Add rows for files that have none and remove rows whose file is gone.

    Parameters
    ----------
    archive : Path
        The archive's folder.
    index : Index
    everything : bool
        Read every file and replace its row, too.
    audited : bool
        What added rows say of the audit trail.
    progress : callable, optional
        Called with the number of files read so far.

    Raises
    ------
    OSError
        A folder cannot be read.
    ServiceUnavailable
        The index cannot be written.
    """
    read = removed = 0
    unreadable: list[str] = []
    there = set()
    for folder in folders(archive):
        there.add(folder)
        known = set(index.digests_below(folder))
        paths = paths_in(archive, folder)
        wanted = paths if everything else [p for p in paths if p not in known]
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            entries = _entries(archive, batch, unreadable)
            index.replace(replace(entry, audited=audited) for entry in entries)
            read += len(entries)
            if progress:
                progress(read)
        removed += _remove(archive, index, known.difference(paths))
    for folder in index.folders() - there:
        removed += _remove(archive, index, index.digests_below(folder))
    return Rebuilt(read, removed, tuple(unreadable))


def rebuild_index(
    archive: Path, index: Path, progress: Callable[[int], None] | None = None
) -> Rebuilt:
    """Make the index anew from the files; a damaged one is set aside as ``*.damaged``.

    What a readable index knows of audits is kept. Without one, everything counts as audited:
    telling of a whole archive again would drown the audit trail.

    Parameters
    ----------
    archive : Path
        The archive's folder. A node may be receiving, unless the index is damaged.
    index : Path
        The SQLite file.
    progress : callable, optional
        Called with the number of files read so far.

    Raises
    ------
    OSError
        A folder cannot be read.
    ServiceUnavailable
        The index cannot be written.
    """
    if is_damaged(index):
        for suffix in ("", "-wal", "-shm"):
            part = index.with_name(index.name + suffix)
            with contextlib.suppress(FileNotFoundError):
                part.rename(part.with_name(part.name + ".damaged"))
    database = Index(index)
    try:
        return compare(
            archive, database, everything=True, audited=database.is_new, progress=progress
        )
    finally:
        database.close()


def _remove(archive: Path, index: Index, paths: Iterable[str]) -> int:
    """Remove the rows of files that are really gone: another process may be storing."""
    gone = [path for path in paths if not (archive / path).exists()]
    if gone:
        index.remove(gone)
    return len(gone)


def _entries(archive: Path, paths: Iterable[str], unreadable: list[str]) -> list[Entry]:
    entries = []
    for path in paths:
        try:
            contents = read_file(archive / path)
            version = version_of(path)
            assert version is not None
            if path_of(contents.provenance.sop_instance, version) != path:
                raise InvalidDataSet("another instance", "the one of its name", path)
        except (InvalidDataSet, OSError) as exc:
            _log.error("archive: %s is left out of the index: %s", path, exc)
            unreadable.append(path)
            continue
        entries.append(
            entry_of(
                contents.provenance,
                contents.keys,
                version=version,
                size=contents.size,
                digest=contents.digest,
            )
        )
    return entries
