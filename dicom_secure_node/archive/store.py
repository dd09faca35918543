"""Keep received instances bit for bit (PS3.15 A.3), and say so only when they are on the disk.

The order of a C-STORE, none of it to be changed:

1. the bytes go to a file under a temporary name, with room for the header before them,
2. the data set is walked and compared with the command (PS3.4 B.2.3),
3. the header is written, with the digest of the bytes, and the file synced,
4. it is renamed to its name unless that exists, and the folder synced,
5. its row joins those that are about to be added to the index,
6. `Incoming.keep` returns, and only now may the peer be told 0000.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

from dicom_secure_node.archive.check import Verdict, check
from dicom_secure_node.archive.incoming import (
    CANNOT_UNDERSTAND,
    DUPLICATE,
    OUT_OF_RESOURCES,
    Incoming,
    Outcome,
    Stored,
    out_of_resources,
)
from dicom_secure_node.archive.index import Counts, Entry, Index, Study, Unaudited
from dicom_secure_node.archive.keys import Keys
from dicom_secure_node.archive.layout import (
    INCOMING,
    INDEX,
    folders,
    make_folders,
    path_of,
    paths_in,
)
from dicom_secure_node.archive.pending import PendingRows
from dicom_secure_node.archive.provenance import Provenance, is_uid, read_provenance
from dicom_secure_node.archive.rebuild import Rebuilt, compare, entry_of
from dicom_secure_node.archive.session import Session
from dicom_secure_node.durable.files import fsync_folder, rename_no_replace
from dicom_secure_node.elements.part10 import read_header
from dicom_secure_node.errors import (
    ConfigurationError,
    InvalidDataSet,
    ServiceUnavailable,
    StoreRefused,
)

Duplicates = Literal["same-only", "refuse", "version"]

_log = logging.getLogger(__name__)


class Archive:
    """Instance files in a folder and their index; safe to use from any thread.

    Several processes may share the folder, each with an `Archive` of its own, opened after
    any fork.

    Parameters
    ----------
    folder : Path
        Made when absent; see `layout`.
    index : Path, optional
        The SQLite file; by default ``index.sqlite`` in `folder`.
    duplicates : {"same-only", "refuse", "version"}
        A UID that is here already: the same bytes again are a success and other bytes
        refused; or both are refused; or other bytes are kept as a version beside the first.
    minimum_free : int
        Bytes of the file system that are left to the index and to others.

    Raises
    ------
    ServiceUnavailable
        The folder or index cannot be used.
    ConfigurationError
        Unknown policy, or an index of a newer release.
    """

    def __init__(
        self,
        folder: Path,
        *,
        index: Path | None = None,
        duplicates: Duplicates = "same-only",
        minimum_free: int = 64 << 20,
    ) -> None:
        if duplicates not in get_args(Duplicates):
            raise ConfigurationError(
                f"found {duplicates!r}, wanted one of {', '.join(get_args(Duplicates))}",
                where="duplicates",
            )
        self.folder = folder
        self.duplicates = duplicates
        self.minimum_free = minimum_free
        self._in_doubt = False  # a file may lack its row
        try:
            make_folders(folder)
            self._session = Session(folder / INCOMING)
        except OSError as exc:
            raise ServiceUnavailable("archive", str(exc)) from exc
        self._index = Index(index or folder / INDEX)
        self._rows = PendingRows(self._index)
        if self._session.found_unclean or self._index.is_new:
            # What an absent index knew of audits is lost, and telling of everything again
            # would drown the trail. After a crash it is the other way round: tell, not hide.
            self._compare(audited=self._index.is_new)
        self._session.forget()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the index in order; after this nothing can be received."""
        try:
            self._rows.close()
        except ServiceUnavailable as exc:
            _log.error("archive: the next start adds what the index lacks: %s", exc)
            self._in_doubt = True
        self._index.close()
        self._session.close(clean=not self._in_doubt)

    def receive(self, provenance: Provenance) -> Incoming:
        """Return where to write one data set as it comes in.

        Raises
        ------
        StoreRefused
            0xC000: a UID of the command is none. 0xA700: no space, or the disk cannot be
            written.
        """
        for name in ("sop_class", "sop_instance", "transfer_syntax"):
            if not is_uid(getattr(provenance, name)):
                raise StoreRefused(f"{name} of the command is not a UID", CANNOT_UNDERSTAND)
        return Incoming(provenance, self._session.temporary(), self.check_space, self._place)

    def check_space(self) -> None:
        """Raise StoreRefused 0xA700 when the free space is below the minimum."""
        with out_of_resources():
            facts = os.statvfs(self.folder)
        if facts.f_bavail * facts.f_frsize < self.minimum_free:
            raise StoreRefused("the archive is full", OUT_OF_RESOURCES)

    def find(self, sop_instance: str) -> tuple[Entry, ...]:
        """Return the versions of an instance, the oldest first; empty when unknown."""
        return self._read().find(sop_instance)

    def counts(self) -> Counts:
        """Return how much there is, by the index."""
        return self._read().counts()

    def studies(self) -> list[Study]:
        """Return every study, the most recently received one first."""
        return self._read().studies()

    def unaudited(self) -> Iterator[Unaudited]:
        """Yield what was kept and no audit message tells of, by association and study."""
        return self._read().unaudited()

    def mark_audited(self, association_id: str) -> None:
        """Note that the audit trail tells of all that this association brought so far."""
        self._read().mark_audited(association_id)

    def paths(self) -> Iterator[Path]:
        """Yield the file of every instance and version, whatever the index says."""
        for folder in folders(self.folder):
            for path in paths_in(self.folder, folder):
                yield self.folder / path

    def check(self) -> Iterator[Verdict]:
        """Hash every file again; yield a verdict on each, and on those that are gone."""
        return check(self.folder, self._read())

    def recover(self) -> None:
        """Put in order what another process left that used this folder and has died.

        Raises
        ------
        ServiceUnavailable
            The folder or index cannot be used.
        """
        try:
            found = self._session.sweep()
        except OSError as exc:
            raise ServiceUnavailable("archive", str(exc)) from exc
        if found:
            self._compare()
            self._session.forget()

    def rebuild(self, progress: Callable[[int], None] | None = None) -> Rebuilt:
        """Read every file again and bring the index into agreement, also while receiving.

        Parameters
        ----------
        progress : callable, optional
            Called with the number of files read so far.
        """
        return self._compare(everything=True, progress=progress)

    def _read(self) -> Index:
        """Return the index with everything in it."""
        self._rows.flush()
        return self._index

    def _compare(
        self,
        *,
        everything: bool = False,
        audited: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Rebuilt:
        try:
            return compare(
                self.folder, self._read(), everything=everything, audited=audited, progress=progress
            )
        except OSError as exc:
            raise ServiceUnavailable("archive", str(exc)) from exc

    def _place(self, incoming: Incoming, keys: Keys) -> Stored:
        """Give a complete file its name, or find that it is here; steps 3 to 5."""
        provenance = incoming.provenance
        finished = False
        for version in itertools.count(1):
            target = self.folder / path_of(provenance.sop_instance, version)
            with out_of_resources():
                is_free = not target.exists()
            if is_free:
                if not finished:
                    incoming.finish()
                    finished = True
                outcome: Outcome = "new" if version == 1 else "version"
                if _renamed(incoming.path, target):
                    incoming.is_placed = True
                    return self._kept(target, outcome, version, incoming, keys, provenance)
            # Here before us, perhaps by a moment.
            if self.duplicates == "refuse":
                raise StoreRefused("this SOP Instance is here already", DUPLICATE)
            first = _same(target, provenance, incoming.digest)
            if first:
                return self._kept(target, "same", version, incoming, keys, first)
            if self.duplicates == "same-only":
                raise StoreRefused("this SOP Instance is here with other bytes", DUPLICATE)
        raise AssertionError("versions have no end")

    def _kept(
        self,
        target: Path,
        outcome: Outcome,
        version: int,
        incoming: Incoming,
        keys: Keys,
        first: Provenance,
    ) -> Stored:
        """Bring name and row to the disk, also for a duplicate: `first` may still be at it."""
        size, digest = incoming.size, incoming.digest
        entry = entry_of(
            first, keys, version=version, size=size, digest=digest, findings=incoming.findings
        )
        try:
            with out_of_resources():
                fsync_folder(target.parent)
            self._rows.add(entry)
        except (StoreRefused, ServiceUnavailable) as exc:
            # The file stays: another thread may just have called its own bytes the same. It is
            # the same, too, when the peer tries again; else the next start finds it.
            self._in_doubt = True
            raise StoreRefused(str(exc), OUT_OF_RESOURCES) from exc
        return Stored(target, outcome, version, size, digest, keys)


def _renamed(source: Path, target: Path) -> bool:
    """Rename a file unless its name is taken; tell whether it was not."""
    with out_of_resources():
        try:
            rename_no_replace(source, target)
        except FileExistsError:
            return False
    return True


def _same(path: Path, provenance: Provenance, digest: str) -> Provenance | None:
    """Return where a file came from that holds these bytes in this transfer syntax, if it does."""
    try:
        with out_of_resources(), path.open("rb") as file:
            first, its_digest = read_provenance(read_header(file))
    except InvalidDataSet as exc:
        _log.error("archive: %s is damaged: %s", path.name, exc)
        return None
    is_same = (first.transfer_syntax, its_digest) == (provenance.transfer_syntax, digest)
    return first if is_same else None
