"""Look for damage: is each file still what was acknowledged?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dicom_secure_node.archive.index import Index
from dicom_secure_node.archive.layout import folders, paths_in
from dicom_secure_node.archive.provenance import read_provenance
from dicom_secure_node.elements.part10 import read_header
from dicom_secure_node.errors import InvalidDataSet

_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Verdict:
    """What was found of one file.

    Attributes
    ----------
    path : str
        Relative to the archive's folder.
    problem : str
        Empty when the file is as it was received.
    """

    path: str
    problem: str


def check(archive: Path, index: Index) -> Iterator[Verdict]:
    """Hash every file again and compare with its header and its row.

    A digest is no signature: who can change the file, its header and the index can change
    all three. This finds failing disks and careless hands.
    """
    seen = set()
    for folder in folders(archive):
        seen.add(folder)
        rows = index.digests_below(folder)
        paths = paths_in(archive, folder)
        for path in paths:
            yield Verdict(path, _problem(archive / path, rows.get(path)))
        yield from _missing(archive, set(rows).difference(paths))
    for folder in sorted(index.folders() - seen):
        yield from _missing(archive, set(index.digests_below(folder)))


def _missing(archive: Path, paths: set[str]) -> Iterator[Verdict]:
    """Yield the files that an index knows and nobody finds; one may have come in meanwhile."""
    for path in sorted(paths):
        if not (archive / path).exists():
            yield Verdict(path, "the file is gone")


def _problem(path: Path, in_index: str | None) -> str:
    """Return what is wrong with one file, or nothing."""
    sha256 = hashlib.sha256()
    try:
        with path.open("rb") as file:
            _, in_header = read_provenance(read_header(file))
            while chunk := file.read(_CHUNK):
                sha256.update(chunk)
    except (InvalidDataSet, OSError) as exc:
        return f"cannot be read: {exc}"
    if sha256.hexdigest() != in_header:
        return "the data set differs from what was received"
    if in_index not in (None, in_header):
        return "the header differs from the index"
    return ""
