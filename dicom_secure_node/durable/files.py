"""Files that are there whole or not at all, also after a power cut.

A new file becomes visible in four steps, always in this order:

1. write it under a temporary name in a folder of the same file system,
2. fsync the file, so that its bytes are on the disk,
3. rename it to its name,
4. fsync the folder, so that the name is on the disk.

Only after step 4 may anybody be told that the file exists.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_AT_FDCWD = -100  # <fcntl.h>: paths are relative to the working directory
_RENAME_NOREPLACE = 1  # <linux/fs.h>

# The file system, or the C library, does not know the flag.
_NOT_OFFERED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


def fsync_folder(path: Path) -> None:
    """Bring the names in the folder `path` to the disk.

    Raises
    ------
    OSError
        The folder cannot be opened or the disk refused.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def make_folder(path: Path, mode: int = 0o750) -> None:
    """Make the folder `path` and its missing parents; their names are then on the disk.

    An existing folder is left as it is.
    """
    if path.is_dir():
        return
    make_folder(path.parent, mode)
    with contextlib.suppress(FileExistsError):  # another thread was first
        path.mkdir(mode)
    fsync_folder(path.parent)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte of `data` at the descriptor's position (`os.write` may stop early)."""
    written = os.write(descriptor, data)
    if written == len(data):
        return
    rest = memoryview(data)[written:]
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace the file `path` by `data`; a reader sees the old or the new one, never a part.

    Parameters
    ----------
    path : Path
        The file; its folder exists.
    data : bytes
        All of the new content.
    mode : int
        Permissions of the file from its first moment on: a secret is never readable by others.

    Raises
    ------
    OSError
        Nothing has changed.
    """
    with replacing(path, mode) as file:
        write_all(file.fileno(), data)


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Give a new file to write; it takes the place of `path` when the block ends without error.

    As `write_atomically`, for what is too large to be held. After an error, in the block too,
    nothing has changed.

    Raises
    ------
    OSError
    """
    # The random part keeps apart threads, and a left-over of a process killed under our number.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode & 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(descriptor, mode)  # not narrowed by the umask: the caller was explicit
            os.fsync(descriptor)
        os.replace(temporary, path)  # noqa: PTH105 - one system call, as the docstring says
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    fsync_folder(path.parent)


def kept_name(path: Path) -> str:
    """Return the random name in the file `path`, made and kept there at the first call.

    Raises
    ------
    OSError
        The file can be neither read nor made.
    """
    try:
        return path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        made = uuid.uuid4().hex
        write_atomically(path, f"{made}\n".encode(), 0o640)
        return made


def rename_no_replace(source: Path, target: Path) -> None:
    """Rename `source` to `target` unless `target` exists; atomic, whoever else tries.

    The caller owes the fsync of the file before and of the target's folder after.

    Raises
    ------
    FileExistsError
        `target` exists. `source` is still there.
    OSError
        Anything else, e.g. two file systems.
    """
    code = _renameat2(os.fsencode(source), os.fsencode(target))
    if code in _NOT_OFFERED:
        # Network file systems: a link never replaces either. A crash between the two
        # calls leaves the file under both names, which loses nothing.
        os.link(source, target)
        source.unlink()
    elif code:
        raise OSError(code, os.strerror(code), str(source), None, str(target))


def _renameat2(source: bytes, target: bytes) -> int:
    """Return 0 or the errno of Linux's renameat2 with RENAME_NOREPLACE."""
    try:
        call = _LIBC.renameat2
    except AttributeError:  # not Linux
        return errno.ENOSYS
    if call(_AT_FDCWD, source, _AT_FDCWD, target, _RENAME_NOREPLACE) == 0:
        return 0
    return ctypes.get_errno()


_LIBC = ctypes.CDLL(None, use_errno=True)
