"""``sign`` with a key that stays in a PKCS#11 token."""

from __future__ import annotations

import sys
from pathlib import Path

import pydicom.data
import pytest

from tests import softhsm
from tests.certs import Ca
from tests.parts import run
from tests.pki.signing import certificate_of

COMMAND = [sys.executable, "-m", "dicom_secure_node"]
PYDICOM = Path(pydicom.data.__file__).parent / "test_files"
CT, MR = PYDICOM / "CT_small.dcm", PYDICOM / "MR_small.dcm"


@pytest.fixture(scope="module")
def ca() -> Ca:
    return Ca()


@pytest.fixture(scope="module")
def uri(ca: Ca) -> str:
    token = softhsm.token("sign-verb")
    public = token.generate("ct1", b"\x01")
    token.put_certificate(certificate_of(ca, public, "digital_signature"), "ct1", b"\x01")
    return token.uri("ct1")


def test_a_batch_is_signed_with_one_login(ca: Ca, uri: str, tmp_path: Path) -> None:
    ca.anchor(tmp_path / "ca.crt")
    (tmp_path / "pin").write_text(softhsm.PIN)
    out = ["--output", tmp_path / "out", CT, MR]
    done = run([*COMMAND, "sign", "--key", f"{uri}&pin-source=file:{tmp_path / 'pin'}", *out])
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 of 2 files signed\n", "")
    again = run([*COMMAND, "sign", "--key", uri, "--passphrase-file", tmp_path / "pin", *out])
    assert again.returncode == 0, again
    for path in (tmp_path / "out").iterdir():
        run(["dcmsign", "+rc", "+cf", tmp_path / "ca.crt", path], check=True)


def test_a_wrong_pin_and_nobody_to_ask(uri: str, tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("0815-wrong")
    out = ["--output", tmp_path / "out", CT, MR]
    wrong = run([*COMMAND, "sign", "--key", uri, "--passphrase-file", tmp_path / "pin", *out])
    assert (wrong.returncode, wrong.stdout) == (2, ""), wrong
    assert "0815" not in wrong.stderr
    silent = run([*COMMAND, "sign", "--key", uri, *out])
    assert silent.returncode == 2
    assert "nobody is there to ask" in silent.stderr
    assert not (tmp_path / "out").exists()


def test_a_token_that_is_away_is_a_service_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text(softhsm.PIN)
    uri = f"pkcs11:token=nobody;object=ct1?module-path={softhsm.MODULE}"
    words = ["--passphrase-file", tmp_path / "pin", "--output", tmp_path / "out", CT]
    done = run([*COMMAND, "sign", "--key", uri, *words])
    assert done.returncode == 3, done
    assert len(done.stderr.splitlines()) == 1
