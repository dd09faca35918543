"""Which file of an archive holds which instance.

::

    instances/3f/3f7c...e1.dcm        SHA-256 of the SOP Instance UID, hex
    instances/3f/3f7c...e1.2.dcm      other bytes under the same UID, received later
    incoming/                         not yet kept
    index.sqlite                      can be made anew from the files
    quarantine/                       an archive of its own, for what is suspicious

256 folders, there from the start: a C-STORE never waits for the fsync of a new one, and ten
million instances are 40,000 in each, which today's file systems take easily. A UID is never
part of a path.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from dicom_secure_node.durable.files import fsync_folder, make_folder

INSTANCES = "instances"
INCOMING = "incoming"
QUARANTINE = "quarantine"
INDEX = "index.sqlite"  # unless it is elsewhere

_NAME = re.compile(r"([0-9a-f]{64})(?:\.([0-9]{1,9}))?\.dcm", re.ASCII)


def make_folders(archive: Path) -> None:
    """Make what is missing of the folders; when this returns, all of them are on the disk.

    Raises
    ------
    OSError
        The disk.
    """
    instances = archive / INSTANCES
    make_folder(instances)
    make_folder(archive / INCOMING)
    with os.scandir(instances) as entries:
        there = {entry.name for entry in entries}
    for name in (f"{number:02x}" for number in range(256)):
        if name not in there:
            (instances / name).mkdir(0o750, exist_ok=True)
    fsync_folder(instances)


@lru_cache(maxsize=256)
def path_of(sop_instance: str, version: int = 1) -> str:
    """Return the path of an instance, relative to the archive's folder."""
    name = hashlib.sha256(sop_instance.encode()).hexdigest()
    middle = "" if version == 1 else f".{version}"
    return f"{INSTANCES}/{name[:2]}/{name}{middle}.dcm"


def version_of(path: str) -> int | None:
    """Return the version a path stands for; None when no archive made it."""
    match = _NAME.fullmatch(path.rpartition("/")[2])
    if match is None:
        return None
    return int(match[2] or 1)


def folders(archive: Path) -> Iterator[str]:
    """Yield the folders that hold instances, relative to the archive's folder."""
    with os.scandir(archive / INSTANCES) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    for name in names:
        yield f"{INSTANCES}/{name}"


def paths_in(archive: Path, folder: str) -> list[str]:
    """Return the paths of the instances in one of `folders`, sorted."""
    with os.scandir(archive / folder) as entries:
        return sorted(f"{folder}/{e.name}" for e in entries if version_of(e.name) is not None)
