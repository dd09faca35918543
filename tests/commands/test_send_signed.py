"""``send --sign-key``: what arrives elsewhere is signed, and what lies here stays as it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pydicom
import pydicom.data
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.certs import Ca
from tests.parts import run, storescp

COMMAND = [sys.executable, "-m", "dicom_secure_node"]
PYDICOM = Path(pydicom.data.__file__).parent / "test_files"
CT, MR, JPEG = (PYDICOM / name for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm"))


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    ca = Ca()
    ca.anchor(tmp_path / "ca.crt")
    ca.write(tmp_path, "ct1", key="rsa")
    ca.write(tmp_path, "ct2", key="rsa", passphrase=b"correct horse")
    (tmp_path / "p").write_text("correct horse")
    return tmp_path


def send(port: int, *words: str | Path) -> Any:
    return run([*COMMAND, "send", "127.0.0.1", str(port), "--plain", *words], timeout=110)


@pytest.mark.timeout(180)
def test_C2_each_instance_is_signed_on_its_way(pki: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    for path in (CT, MR, JPEG):
        (study / path.name).write_bytes(path.read_bytes())
    ds = pydicom.dcmread(CT)
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    ds.save_as(study / "implicit.dcm", implicit_vr=True, little_endian=True)
    (study / "note.txt").write_text("no DICOM")
    before = {path: path.read_bytes() for path in study.iterdir()}
    key = ["--sign-key", pki / "ct1.key", "--sign-cert", pki / "ct1.crt"]
    with storescp(tmp_path, "+B", "+xa", "-pm", "+uf") as peer:
        done = send(peer.port, *key, "--json", study)
    assert done.returncode == 1, "one is no DICOM"
    told = {Path(row["path"]).name: row for row in map(json.loads, done.stdout.splitlines())}
    assert {name: row["outcome"] for name, row in told.items()} == {
        "CT_small.dcm": "stored",
        "MR_small.dcm": "stored",
        "JPEG2000.dcm": "stored",
        "implicit.dcm": "stored",
        "note.txt": "unsendable",
    }
    assert {path: path.read_bytes() for path in study.iterdir()} == before
    received = {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, peer_files(tmp_path))}
    for row in told.values():
        if row["outcome"] == "stored":
            (signature,) = received[row["sop_instance"]].DigitalSignaturesSequence
            assert signature.DigitalSignatureUID == row["signature"]
    assert "signature" not in told["note.txt"]
    assert received["1.2.3.4"].file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    for path in peer_files(tmp_path):
        run(["dcmsign", "+rc", "+cf", pki / "ca.crt", path], check=True)
    words = ["verify", "--trust", pki / "ca.crt", "--policy", "require-creator"]
    run([*COMMAND, *words, tmp_path / "received"], check=True)


def peer_files(folder: Path) -> list[Path]:
    return sorted((folder / "received").iterdir())


def test_a_key_with_a_passphrase_and_another_profile(pki: Path, tmp_path: Path) -> None:
    key = ["--sign-key", pki / "ct2.key", "--sign-cert", pki / "ct2.crt"]
    more = ["--sign-passphrase-file", pki / "p", "--sign-profile", "authorization"]
    with storescp(tmp_path, "+B") as peer:
        done = send(peer.port, *key, *more, CT)
        assert (done.returncode, done.stdout) == (0, "1 of 1 files stored\n"), done
        closed = send(peer.port, *key, CT)
    assert closed.returncode == 2
    assert "the private key is encrypted, and nobody is there to ask" in closed.stderr
    (path,) = peer_files(tmp_path)
    run(["dcmsign", "+ru", "+cf", pki / "ca.crt", path], check=True)


def test_what_cannot_be_signed_is_not_sent(pki: Path, tmp_path: Path) -> None:
    key = ["--sign-key", pki / "ct1.key", "--sign-cert", pki / "ct1.crt", "--sign-profile", "sr"]
    with storescp(tmp_path, "+B") as peer:
        done = send(peer.port, *key, CT)
    assert done.returncode == 1
    assert "unsendable: found sr signature impossible: neither an SR document" in done.stdout
    assert peer_files(tmp_path) == []


def test_options_of_signing_want_a_key(pki: Path) -> None:
    for words in (["--sign-cert", pki / "ct1.crt"], ["--sign-profile", "base"]):
        done = send(1, *words, CT)
        assert (done.returncode, "wanted --sign-key too" in done.stderr) == (2, True)
