"""``sign`` as somebody at a shell uses it, with dcmsign to judge what it makes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydicom
import pydicom.data
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_secure_node.spec.signatures import PURPOSES
from tests.certs import Ca
from tests.parts import run

COMMAND = [sys.executable, "-m", "dicom_secure_node"]
ROOT = Path(__file__).parent.parent.parent
PYDICOM = Path(pydicom.data.__file__).parent / "test_files"
CT, MR, SR = (PYDICOM / name for name in ("CT_small.dcm", "MR_small.dcm", "test-SR.dcm"))

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.crt and the credentials ada, eve (EC), old (expired)."""
    made = tmp_path_factory.mktemp("signers")
    ca = Ca()
    ca.anchor(made / "ca.crt")
    ca.write(made, "ada", key="rsa")
    ca.write(made, "bob", key="rsa", passphrase=b"correct horse")
    ca.write(made, "eve", key="ec")
    ca.write(made, "old", key="rsa", expired=True)
    ca.write(made, "odd", key="rsa", wrong_key=True)
    return made


def sign(folder: Path, out: Path, *words: str | Path, by: str = "ada", **more: Any) -> Any:
    key = ["--key", folder / f"{by}.key", "--cert", folder / f"{by}.crt"]
    return run([*COMMAND, "sign", *key, "--output", out, *words], timeout=110, **more)


def rows(done: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def dcmsign(folder: Path, *words: str | Path) -> Any:
    return run(["dcmsign", "+cf", folder / "ca.crt", *words])


def verification(done: Any) -> bool:
    return done.returncode == 0 and "Signature Verification : OK" in done.stderr + done.stdout


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# -- what dcmsign says of it


PROFILES = {"base": "+rv", "creator": "+rc", "authorization": "+ru"}


@pytest.mark.parametrize("profile", PROFILES)
def test_C1_C2_C3_dcmsign_accepts_each_profile(folder: Path, tmp_path: Path, profile: str) -> None:
    done = sign(folder, tmp_path / "out", "--profile", profile, CT, MR)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 of 2 files signed\n", "")
    for name in ("CT_small.dcm", "MR_small.dcm"):
        assert verification(dcmsign(folder, PROFILES[profile], tmp_path / "out" / name))


@pytest.mark.parametrize("mac", ["md5", "sha1", "ripemd160", "sha256", "sha384", "sha512"])
def test_C1_the_six_digests(folder: Path, tmp_path: Path, mac: str) -> None:
    done = sign(folder, tmp_path, "--mac", mac, CT)
    assert done.returncode == 0, done.stderr
    weak = mac in ("md5", "sha1", "ripemd160")
    assert (f"warning: {mac} can be forged" in done.stderr) == weak
    assert len(done.stderr.splitlines()) <= 1
    ds = pydicom.dcmread(tmp_path / "CT_small.dcm")
    assert ds.MACParametersSequence[0].MACAlgorithm == mac.upper()
    assert verification(dcmsign(folder, tmp_path / "CT_small.dcm"))


def as_sr(path: Path, flag: str) -> Path:
    """Write an SR document; a verified one with who verified it."""
    ds = pydicom.dcmread(SR)
    ds.VerificationFlag = flag
    if flag == "VERIFIED":
        observer = Dataset()
        observer.VerifyingOrganization = "Hospital"
        observer.VerificationDateTime = "20240101120000"
        observer.VerifyingObserverName = "Doe^Ada"
        observer.VerifyingObserverIdentificationCodeSequence = []
        ds.VerifyingObserverSequence = [observer]
    elif "VerifyingObserverSequence" in ds:
        del ds.VerifyingObserverSequence
    ds.save_as(path)
    return path


SR_CASES = {
    "a verified document is verified": ("VERIFIED", [], "sr-verification", "5"),
    "an unverified one has an author": ("UNVERIFIED", [], "sr", "1"),
    "another signature of a verified one": ("VERIFIED", ["--purpose", "8"], "sr", "8"),
}


@pytest.mark.parametrize(("flag", "words", "profile", "purpose"), SR_CASES.values(), ids=SR_CASES)
def test_C4_the_document_decides(
    folder: Path, tmp_path: Path, flag: str, words: list[str], profile: str, purpose: str
) -> None:
    document = as_sr(tmp_path / "sr.dcm", flag)
    done = sign(folder, tmp_path / "out", "--profile", "sr", "--json", *words, document)
    assert done.returncode == 0, done
    (row,) = rows(done)
    assert row["profile"] == profile
    signature = pydicom.dcmread(tmp_path / "out" / "sr.dcm").DigitalSignaturesSequence[0]
    code = signature.DigitalSignaturePurposeCodeSequence[0]
    assert (code.CodeValue, code.CodeMeaning) == (purpose, PURPOSES[purpose])
    assert verification(dcmsign(folder, tmp_path / "out" / "sr.dcm"))


def test_an_image_cannot_have_a_signature_of_a_report(folder: Path, tmp_path: Path) -> None:
    done = sign(folder, tmp_path, "--profile", "sr", CT)
    assert done.returncode == 1
    assert "sr signature impossible: neither an SR document" in done.stdout
    assert names(tmp_path) == []


def test_an_item_is_signed_where_it_lies(folder: Path, tmp_path: Path) -> None:
    done = sign(folder, tmp_path, "--profile", "base", "--at", "(0040,A730)[2]", "--json", SR)
    assert done.returncode == 0, done
    signed = pydicom.dcmread(tmp_path / "test-SR.dcm")
    assert "DigitalSignaturesSequence" not in signed
    (signature,) = signed.ContentSequence[1].DigitalSignaturesSequence
    assert signature.DigitalSignatureUID == rows(done)[0]["uid"]
    assert verification(dcmsign(folder, tmp_path / "test-SR.dcm"))


def test_elements_are_added_and_left_out(folder: Path, tmp_path: Path) -> None:
    words = ["--tag", "StudyDate", "--tag", "(0020,0032)", "--tag", "0009,1001"]
    done = sign(folder, tmp_path, *words, "--without", "PatientName", "--json", CT)
    (row,) = rows(done)
    assert {"(0008,0020)", "(0020,0032)", "(0009,0010)", "(0009,1001)"} <= set(row["signed"])
    assert "(0010,0010)" not in row["signed"]
    assert "(0010,0020)" in row["signed"]
    assert verification(dcmsign(folder, tmp_path / "CT_small.dcm"))


def test_PS315_A3_another_encoding_is_converted_and_said_so(folder: Path, tmp_path: Path) -> None:
    ds = pydicom.dcmread(CT)
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.save_as(tmp_path / "implicit.dcm", implicit_vr=True, little_endian=True)
    done = sign(folder, tmp_path / "out", tmp_path / "implicit.dcm", CT)
    assert done.stdout == "2 of 2 files signed, 1 converted to explicit VR little endian\n"
    assert verification(dcmsign(folder, tmp_path / "out" / "implicit.dcm"))
    signed = pydicom.dcmread(tmp_path / "out" / "implicit.dcm")
    assert signed.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_a_second_signature_stands_beside_the_first(folder: Path, tmp_path: Path) -> None:
    done = sign(folder, tmp_path / "one", CT)
    assert done.returncode == 0
    signed = tmp_path / "one" / "CT_small.dcm"
    more = ["--passphrase-file", tmp_path / "p"]
    (tmp_path / "p").write_text("correct horse\nand more\n")
    done = sign(folder, tmp_path / "two", "--profile", "authorization", *more, signed, by="bob")
    assert done.returncode == 0, done
    ds = pydicom.dcmread(tmp_path / "two" / "CT_small.dcm")
    assert len(ds.DigitalSignaturesSequence) == 2
    done = dcmsign(folder, tmp_path / "two" / "CT_small.dcm")
    assert (done.stderr + done.stdout).count("Signature Verification : OK") == 2


# -- keys


def test_a_pkcs12_file_made_by_openssl(folder: Path, tmp_path: Path) -> None:
    export = ["openssl", "pkcs12", "-export", "-inkey", folder / "ada.key"]
    export += ["-in", folder / "ada.crt", "-out", tmp_path / "ada.p12", "-passout", "pass:sesame"]
    run(export, check=True)
    (tmp_path / "p").write_text("sesame\n")
    words = [*COMMAND, "sign", "--key", tmp_path / "ada.p12", "--output", tmp_path / "out"]
    done = run([*words, "--passphrase-file", tmp_path / "p", CT, MR])
    assert (done.returncode, done.stderr) == (0, "")
    assert verification(dcmsign(folder, "+rc", tmp_path / "out" / "CT_small.dcm"))
    done = run([*words, CT])
    assert done.returncode == 2
    assert "encrypted" in done.stderr


def at_a_terminal(words: list[str | Path], typed: str) -> tuple[int, str]:
    """Run a program at a terminal, type once it asks; return exit code and what it showed."""
    child, terminal = pty.fork()
    if not child:
        os.execv(words[0], [os.fspath(word) for word in words])  # noqa: S606 (pty.fork gives the terminal)
    shown = b""
    while b"passphrase" not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, typed.encode() + b"\n")
    try:
        while more := os.read(terminal, 1024):
            shown += more
    except OSError:  # it has ended
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


def test_a_passphrase_is_asked_for_once_at_a_terminal(folder: Path, tmp_path: Path) -> None:
    key = ["--key", folder / "bob.key", "--cert", folder / "bob.crt"]
    words = [*COMMAND, "sign", *key, "--output", tmp_path / "out", CT, MR]
    code, shown = at_a_terminal(words, "correct horse")
    assert (code, shown.count("passphrase of the private key")) == (0, 1), shown
    assert "2 of 2 files signed" in shown
    assert "correct horse" not in shown
    code, shown = at_a_terminal(words, "wrong horse")
    assert code == 2
    assert "the passphrase does not open" in shown
    assert "wrong horse" not in shown


# -- which files


def test_one_bad_file_does_not_stop_the_others(folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    (study / "deeper").mkdir(parents=True)
    (study / "a.dcm").write_bytes(CT.read_bytes())
    (study / "deeper" / "b.dcm").write_bytes(MR.read_bytes())
    (study / "cut.dcm").write_bytes(CT.read_bytes()[:5000])
    (study / "note.txt").write_text("no DICOM")
    (study / "empty").touch()
    directory = PYDICOM / "dicomdirtests" / "DICOMDIR"
    (study / "DICOMDIR").write_bytes(directory.read_bytes())
    done = sign(folder, tmp_path / "out", "--json", study)
    assert (done.returncode, done.stderr) == (1, "")
    told = {Path(row["path"]).name: row for row in rows(done)}
    assert [Path(row["path"]) for row in rows(done)] == sorted(
        path for path in study.rglob("*") if path.is_file()
    )
    assert {name: row["outcome"] for name, row in told.items()} == {
        "a.dcm": "signed",
        "b.dcm": "signed",
        "cut.dcm": "failed",
        "note.txt": "failed",
        "empty": "failed",
        "DICOMDIR": "skipped",
    }
    assert names(tmp_path / "out") == ["a.dcm", "b.dcm"], "nothing is half there"
    assert told["a.dcm"]["output"] == str(tmp_path / "out" / "a.dcm")
    assert told["note.txt"]["uid"] is None
    done = sign(folder, tmp_path / "again", study)
    assert done.stdout.splitlines()[-1] == "2 of 6 files signed, 3 failed, 1 skipped"


def test_the_copy_keeps_every_byte_and_the_mode(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(CT.read_bytes())
    (tmp_path / "a.dcm").chmod(0o604)
    assert sign(folder, tmp_path / "deep" / "out", tmp_path / "a.dcm").returncode == 0
    signed = tmp_path / "deep" / "out" / "a.dcm"
    assert signed.stat().st_mode & 0o777 == 0o604
    assert (tmp_path / "a.dcm").read_bytes() == CT.read_bytes()
    run(["dcmsign", "+ra", signed, tmp_path / "stripped.dcm"], check=True)
    assert pydicom.dcmread(tmp_path / "stripped.dcm") == pydicom.dcmread(CT)


def test_a_quoted_pattern_is_expanded(folder: Path, tmp_path: Path) -> None:
    for name in ("a1.dcm", "a[2].dcm", "b.dcm"):
        (tmp_path / name).write_bytes(CT.read_bytes())
    done = sign(folder, tmp_path / "out", tmp_path / "a*.dcm", tmp_path / "a[2].dcm")
    assert (done.returncode, done.stdout) == (0, "2 of 2 files signed\n"), done
    assert names(tmp_path / "out") == ["a1.dcm", "a[2].dcm"]


# -- nothing is done by halves: usage errors


@pytest.fixture
def study(tmp_path: Path) -> Path:
    made = tmp_path / "study"
    for name in ("one/a.dcm", "two/a.dcm", "two/b.dcm"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(CT.read_bytes())
    return made


def test_two_files_of_one_name_are_refused_before_anything(
    folder: Path, tmp_path: Path, study: Path
) -> None:
    done = sign(folder, tmp_path / "out", study)
    assert done.returncode == 2
    assert "two files of one name" in done.stderr
    assert not (tmp_path / "out").exists()
    same = sign(folder, tmp_path / "out", study / "two", study / "two" / "b.dcm")
    assert same.stdout == "2 of 2 files signed\n", "the same file twice is one"


def test_a_file_is_never_replaced_by_its_signed_copy(
    folder: Path, tmp_path: Path, study: Path
) -> None:
    (tmp_path / "link").symlink_to(study / "two")
    for output in (study / "two", tmp_path / "link"):
        done = sign(folder, output, study / "two")
        assert done.returncode == 2
        assert "wanted another folder" in done.stderr
    assert (study / "two" / "a.dcm").read_bytes() == CT.read_bytes()


USAGE: dict[str, tuple[str, list[str], str]] = {
    "no such file": ("ada", ["nothing.dcm"], "nothing.dcm: No such file"),
    "a pattern of nothing": ("ada", ["*.nothing"], "*.nothing: No such file"),
    "an empty folder": ("ada", ["FOLDER"], "found no file"),
    "no such key": ("zoe", ["CT"], "zoe.crt: no such file"),
    "no RSA key": ("eve", ["CT"], "found an EC key, wanted an RSA key"),
    "key of another certificate": ("odd", ["CT"], "does not belong to the certificate"),
    "expired certificate": ("old", ["CT", "MR"], "within the validity of the signer's certificate"),
    "encrypted key, nobody to ask": ("bob", ["CT", "MR"], "the private key is encrypted"),
    "unknown profile": ("ada", ["--profile", "c2", "CT"], "invalid choice: 'c2'"),
    "unknown digest": ("ada", ["--mac", "SHA256", "CT"], "invalid choice: 'SHA256'"),
    "purpose 19": ("ada", ["--purpose", "19", "CT"], "invalid choice: 19"),
    "no tag": ("ada", ["--tag", "PatientsNickname", "CT"], "wanted GGGG,EEEE or a keyword"),
    "no location": ("ada", ["--at", "first", "CT"], "wanted one like (0040,A730)[2]"),
    "an element nobody may sign": ("ada", ["--tag", "0002,0010", "CT"], "cannot be signed"),
    "an element that has to be": ("ada", ["--without", "PixelData", "CT"], "demands it"),
}


@pytest.mark.parametrize(("by", "words", "reason"), USAGE.values(), ids=USAGE)
def test_usage_errors(folder: Path, tmp_path: Path, by: str, words: list[str], reason: str) -> None:
    (tmp_path / "FOLDER").mkdir()
    places = {"CT": CT, "MR": MR, "FOLDER": tmp_path / "FOLDER"}
    done = sign(folder, tmp_path / "out", *(places.get(word, word) for word in words), by=by)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert reason in done.stderr
    assert done.stderr.splitlines()[-1].startswith("dicom-secure-node")
    assert not list((tmp_path / "out").glob("*"))


def test_ctrl_c_leaves_no_half_file(folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    for n in range(300):
        (study / f"{n:03}.dcm").symlink_to(CT)
    key = ["--key", folder / "ada.key", "--cert", folder / "ada.crt"]
    words = [*COMMAND, "sign", *key, "--json", "--output", tmp_path / "out", study]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["outcome"] == "signed"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    for path in (tmp_path / "out").iterdir():
        assert path.suffix == ".dcm"
        assert pydicom.dcmread(path).DigitalSignaturesSequence


def test_no_verb_of_signatures_needs_the_network() -> None:
    code = (
        "import sys; sys.modules['pynetdicom'] = None\n"
        "from dicom_secure_node.commands import main\n"
        "import dicom_secure_node.commands.sign, dicom_secure_node.commands.verify\n"
    )
    run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_help_shows_an_example() -> None:
    for verb in ("sign", "verify"):
        done = run([*COMMAND, verb, "--help"], check=True)
        assert f"examples:\n  dicom-secure-node {verb} --" in done.stdout
