"""A fresh home for each test, copied from one that is made once a run: keys take time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dicom_secure_node.commands.home import make_home


@pytest.fixture(scope="session")
def template_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("template") / "home"
    make_home(home, 0)
    return home


@pytest.fixture
def home(template_home: Path, tmp_path: Path) -> Path:
    """A home as ``serve`` makes it, its own CA and client certificate included."""
    return Path(shutil.copytree(template_home, tmp_path / "home"))
