"""One data set on its way into the archive."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

from dicom_secure_node.archive.keys import Keys, read_keys
from dicom_secure_node.archive.provenance import Provenance, complete
from dicom_secure_node.durable.files import write_all
from dicom_secure_node.elements.syntax import encoding_of
from dicom_secure_node.errors import InvalidDataSet, StoreRefused

# PS3.4 Table B.2-1 and PS3.7 C.5.
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
DUPLICATE = 0x0111

_FREE_EVERY = 16 << 20  # bytes between two looks at the free space

Outcome = Literal["new", "same", "version"]


@dataclass(frozen=True)
class Stored:
    """An instance that is kept.

    Attributes
    ----------
    path : Path
        Of the file.
    outcome : str
        ``new``; ``same`` when the same bytes were here before, ``version`` when they are kept
        beside others of the same UID.
    version : int
        1 for the first bytes under this UID.
    size : int
        Bytes of the data set.
    digest : str
        SHA-256 of the data set, hex.
    keys : Keys
        Study, series, patient and so on, as text.
    """

    path: Path
    outcome: Outcome
    version: int
    size: int
    digest: str
    keys: Keys = field(repr=False)

    @property
    def study(self) -> str:
        """Return (0020,000D) Study Instance UID."""
        return self.keys.study

    @property
    def series(self) -> str:
        """Return (0020,000E) Series Instance UID."""
        return self.keys.series

    @property
    def patient_id(self) -> str:
        """Return (0010,0020) Patient ID."""
        return self.keys.patient_id

    @property
    def patient_name(self) -> str:
        """Return (0010,0010) Patient's Name."""
        return self.keys.patient_name

    @property
    def accession(self) -> str:
        """Return (0008,0050) Accession Number."""
        return self.keys.accession


class Incoming:
    """One data set under a temporary name; for one thread.

    `Archive.receive` makes it. Whoever has it calls `write` for each piece, then `keep`, and
    in any case `abandon` at the end, which does nothing after a `keep` that went well.

    Parameters
    ----------
    provenance : Provenance
    path : Path
        Temporary; does not exist.
    check_space : callable
        Raises when the disk is too full.
    place : callable
        Gives the complete file its name, see `Archive`.

    Attributes
    ----------
    provenance : Provenance
    path : Path
        The temporary file.
    size : int
        Bytes of the data set so far.
    findings : mapping or None
        What was found out about it, JSON values, for its row in the index.
    is_placed : bool
        The file has another name by now.
    """

    def __init__(
        self,
        provenance: Provenance,
        path: Path,
        check_space: Callable[[], None],
        place: Callable[[Incoming, Keys], Stored],
    ) -> None:
        self.provenance = provenance
        self.path = path
        self.size = 0
        self.findings: Mapping[str, Any] | None = None
        self.is_placed = False
        self._check_space = check_space
        self._place = place
        self._hash = hashlib.sha256()
        self._header = provenance.header()
        self._offset = len(self._header)
        self._next_look = _FREE_EVERY
        check_space()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with out_of_resources():
            self._descriptor = os.open(path, flags, 0o640)
            os.lseek(self._descriptor, self._offset, os.SEEK_SET)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the bytes so far, hex."""
        return self._hash.hexdigest()

    def write(self, data: bytes | memoryview, /) -> None:
        """Append bytes of the data set, as received.

        Raises
        ------
        StoreRefused
            0xA700: the disk is full or failed.
        """
        if self.size >= self._next_look:
            self._check_space()
            self._next_look = self.size + _FREE_EVERY
        with out_of_resources():
            write_all(self._descriptor, data)
        self._hash.update(data)
        self.size += len(data)

    def open(self) -> BinaryIO:
        """Return a reader of its own at the first byte of the data set."""
        with out_of_resources():
            file = self.path.open("rb")
            file.seek(self._offset)
        return file

    def keep(self) -> Stored:
        """Keep the data set; when this returns, it outlives a power cut.

        Raises
        ------
        StoreRefused
            0xA700: the disk. 0xA900: SOP Class or Instance UID of the data set are not those
            of the command. 0xC000: the data set is malformed or breaks off. 0x0111: the policy
            does not want this duplicate.
        """
        try:
            return self._place(self, self._understand())
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let the bytes go; harmless when they were kept or let go before."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
            if not self.is_placed:
                self.path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Write the header and bring the file to the disk; for the archive."""
        with out_of_resources():
            os.pwrite(self._descriptor, complete(self._header, self.digest), 0)
            os.fsync(self._descriptor)

    def _understand(self) -> Keys:
        """Return the keys of the data set, which agrees with the command."""
        encoding = encoding_of(self.provenance.transfer_syntax)
        try:
            with out_of_resources():
                keys = read_keys(self._descriptor, self._offset, self.size, encoding)
        except InvalidDataSet as exc:
            raise StoreRefused(f"the data set: {exc}", CANNOT_UNDERSTAND) from exc
        for name, found, wanted in (
            ("(0008,0016) SOP Class UID", keys.sop_class, self.provenance.sop_class),
            ("(0008,0018) SOP Instance UID", keys.sop_instance, self.provenance.sop_instance),
        ):
            if found != wanted:
                what = "differs from the command's" if found else "is absent"
                raise StoreRefused(f"{name} of the data set {what}", DOES_NOT_MATCH)
        return keys


class _OutOfResources:
    """A context that is cheap to enter, several times for each instance."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError):
            raise StoreRefused(f"the archive's disk: {error.strerror}", OUT_OF_RESOURCES) from error


_OUT_OF_RESOURCES = _OutOfResources()


def out_of_resources() -> _OutOfResources:
    """Return a context that turns what the disk says into StoreRefused 0xA700."""
    return _OUT_OF_RESOURCES
