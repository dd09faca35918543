"""Which files the verbs that work on files are given, and who opens their private key."""

from __future__ import annotations

import getpass
import glob
import sys
from collections.abc import Iterable
from pathlib import Path

from dicom_secure_node.elements.folders import files_below
from dicom_secure_node.errors import ConfigurationError


def given_files(words: Iterable[str]) -> list[Path]:
    """Return the files named on a command line, each once: files, folders, patterns.

    A pattern comes to us unexpanded where it was quoted, or where the shell found nothing.

    Raises
    ------
    ConfigurationError
        There is not one file.
    FileNotFoundError
        A path or pattern leads to nothing.
    """
    words = list(words)
    paths = [Path(found) for word in words for found in _expanded(word)]
    files = list({path.absolute(): path for path in files_below(paths)}.values())
    if not files:
        raise ConfigurationError("found no file, wanted at least one", " ".join(words))
    return files


def _expanded(word: str) -> list[str]:
    if Path(word).exists() or not glob.has_magic(word):
        return [word]  # a name may hold brackets
    return sorted(glob.glob(word, recursive=True)) or [word]  # noqa: PTH207 - Path.glob wants relative ones


def ask_passphrase() -> bytes:
    """Return the passphrase of a private key from whoever sits there.

    Raises
    ------
    ConfigurationError
        Nobody does.
    """
    if not sys.stdin.isatty():
        raise ConfigurationError("the private key is encrypted, and nobody is there to ask")
    return getpass.getpass("passphrase of the private key: ").encode()
