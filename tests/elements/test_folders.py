"""Which files a path means."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dicom_secure_node.elements.folders import files_below
from tests.parts import run

ROOT = Path(__file__).parent.parent.parent


def test_folders_are_walked_in_order_of_name(tmp_path: Path) -> None:
    for name in ("b/2", "b/1", "a", "c/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "circle").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    found = [str(path.relative_to(tmp_path)) for path in files_below([tmp_path])]
    assert found == ["a", "b/1", "b/2", "c/d/e", "link"]
    assert list(files_below([tmp_path / "b" / "1"])) == [tmp_path / "b" / "1"]


def test_a_path_to_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(files_below([tmp_path / "nothing"]))


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from dicom_secure_node.elements.folders import files_below\n"
        "os.geteuid() or os.setuid(65534)\n"
        "print(list(files_below([Path(sys.argv[1])])))\n"
    )
    for folder in (tmp_path, *tmp_path.parents[:-1]):
        if folder.stat().st_uid == os.geteuid() and folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o005)
    done = run([sys.executable, "-c", code, tmp_path], cwd=ROOT)
    assert "PermissionError" in done.stderr
