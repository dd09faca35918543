"""Which files are meant by paths that may be folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def files_below(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield `paths`, folders replaced by the files below them in order of name.

    Links to files count as files, links to folders are not followed: they may lead in a circle.

    Raises
    ------
    FileNotFoundError
        A path does not exist.
    PermissionError
        A folder cannot be read. Passed over, it would look as if there was nothing in it.
    """
    for path in paths:
        if path.is_dir():
            below = (
                Path(folder, name)
                for folder, _, names in os.walk(path, onerror=_refuse)
                for name in names
            )
            yield from sorted(file for file in below if file.is_file())
        else:
            path.stat()
            yield path


def _refuse(error: OSError) -> None:
    raise error
