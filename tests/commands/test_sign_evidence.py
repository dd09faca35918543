"""``sign --evidence`` and ``verify --evidence``: a document and what it refers to (PS3.15 A.4)."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from tests.parts import run
from tests.signatures.documents import document
from tests.signatures.signing_parts import Site, tamper

COMMAND = [sys.executable, "-m", "dicom_secure_node"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "signers")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    folder.mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm"):
        shutil.copy(Path(str(get_testdata_file(name))), folder)
    return folder


@pytest.fixture
def report(tmp_path: Path, study: Path) -> Path:
    path = tmp_path / "report.dcm"
    document(path, sorted(study.iterdir()))
    return path


def sign(site: Site, report: Path, out: Path, *words: str | Path) -> Any:
    key = ["--key", site.leaf.key, "--cert", site.leaf.crt, "--profile", "sr"]
    return run([*COMMAND, "sign", *key, *words, "--output", out, report])


def verify(site: Site, out: Path, study: Path) -> dict[str, Any]:
    options = ["--trust", site.anchor, "--policy", "require-sr", "--evidence", study, "--json"]
    done = run([*COMMAND, "verify", *options, out / "report.dcm"])
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == (0 if row["valid"] else 1), done.stderr
    return dict(row)


def test_A4_a_document_binds_what_it_refers_to(
    site: Site, report: Path, study: Path, tmp_path: Path
) -> None:
    out = tmp_path / "signed"
    done = sign(site, report, out, "--evidence", study)
    assert done.returncode == 0, done.stdout + done.stderr
    assert verify(site, out, study)["valid"]
    run(["dcmsign", "--verify", "+cf", site.anchor, out / "report.dcm"], check=True)
    changed = tamper(study / "CT_small.dcm", b"CompressedSamples^CT1", b"CompressedSamples^CT2")
    changed.rename(study / "CT_small.dcm")
    row = verify(site, out, study)
    assert not row["valid"]
    assert "the instance is not the one the MAC was made of" in row["reasons"][0]


def test_A4b_an_instance_that_is_not_there_keeps_the_document_unsigned(
    site: Site, report: Path, study: Path, tmp_path: Path
) -> None:
    (study / "MR_small.dcm").unlink()
    done = sign(site, report, tmp_path / "signed", "--evidence", study)
    assert done.returncode == 1
    assert "A.4.b" in done.stdout + done.stderr
    assert list((tmp_path / "signed").iterdir()) == []


def test_A4b_a_document_signed_without_references_is_told_of(
    site: Site, report: Path, study: Path, tmp_path: Path
) -> None:
    out = tmp_path / "signed"
    assert sign(site, report, out).returncode == 0  # C.4 alone demands none
    row = verify(site, out, study)
    assert not row["valid"]
    assert "A.4.b" in " ".join(row["reasons"])


def test_evidence_is_for_documents(site: Site, report: Path, study: Path, tmp_path: Path) -> None:
    argv = [*COMMAND, "sign", "--key", site.leaf.key, "--cert", site.leaf.crt]
    done = run([*argv, "--evidence", study, "--output", tmp_path / "signed", report])
    assert (done.returncode, "wanted --profile sr too" in done.stderr) == (2, True)
