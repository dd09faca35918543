"""``sign --tsa`` and what ``verify`` makes of the certified time; openssl is the authority."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pydicom.data
import pytest

from tests.certs import Ca
from tests.parts import free_port, run
from tests.pki.stamping import Stamper, serving

COMMAND = [sys.executable, "-m", "dicom_secure_node"]
PYDICOM = Path(pydicom.data.__file__).parent / "test_files"
CT, MR = PYDICOM / "CT_small.dcm", PYDICOM / "MR_small.dcm"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.crt, ca.crl, ada, and the authority of an authority of its own."""
    made = tmp_path_factory.mktemp("timestamps")
    ca, times = Ca(), Ca("Time CA")
    ca.anchor(made / "ca.crt")
    ca.write(made, "ada", key="rsa")
    ca.crl(made / "ca.crl")
    times.anchor(made / "times.crt")
    times.crl(made / "times.crl")
    leaf = times.write(made, "tsa", key="rsa", usage="time")
    with serving(Stamper(made / "tsa", leaf).answer) as url:
        assert sign(made, url, "--output", made / "signed", CT, MR).returncode == 0
    return made


def sign(folder: Path, url: str, *words: str | Path) -> Any:
    key = ["--key", folder / "ada.key", "--cert", folder / "ada.crt", "--tsa", url]
    return run([*COMMAND, "sign", *key, *words], timeout=110)


def verify(folder: Path, *words: str | Path) -> Any:
    return run([*COMMAND, "verify", "--trust", folder / "ca.crt", *words, folder / "signed"])


def test_C1_a_certified_time_counts_where_its_authority_is_trusted(folder: Path) -> None:
    policy = ["--policy", "require-timestamp"]
    done = verify(folder, *policy, "--tsa-trust", folder / "times.crt", "--json")
    assert done.returncode == 0, done
    for row in map(json.loads, done.stdout.splitlines()):
        (one,) = row["signatures"]
        assert one["timestamp"]["valid"]
        assert one["signed_at"] == one["timestamp"]["time"]
    done = verify(folder, *policy)
    assert done.returncode == 1
    assert "no certified timestamp that counts" in done.stdout
    done = verify(folder, "--report", "--tsa-trust", folder / "times.crt")
    assert ", by CN=tsa,O=Test Hospital" in done.stdout
    assert "counts for nothing: the authority's certificate: unknown issuer" in verify(
        folder, "--report"
    ).stdout.replace("\n" + " " * 26, " ")


def test_lists_cover_the_authority_too(folder: Path) -> None:
    words = ["--policy", "require-timestamp", "--tsa-trust", folder / "times.crt"]
    one = verify(folder, *words, "--crl", folder / "ca.crl")
    assert one.returncode == 1, "nobody knows whether the authority was revoked"
    both = verify(folder, *words, "--crl", folder / "ca.crl", "--crl", folder / "times.crl")
    assert both.returncode == 0, both


def test_an_authority_that_is_away_ends_the_batch(folder: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/tsa"
    done = sign(folder, url, "--output", tmp_path / "out", CT, MR)
    assert (done.returncode, done.stdout) == (3, ""), done
    assert done.stderr.startswith("dicom-secure-node: error: timestamp authority 127.0.0.1:")
    assert len(done.stderr.splitlines()) == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_an_address_that_is_none(folder: Path, tmp_path: Path) -> None:
    done = sign(folder, "tsa.example.org", "--output", tmp_path / "out", CT, MR)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done
    assert not (tmp_path / "out").exists()
