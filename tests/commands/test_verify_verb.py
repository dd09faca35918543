"""``verify`` as somebody at a shell uses it, on what dcmsign signed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydicom
import pydicom.data
import pytest

from tests.certs import Ca
from tests.parts import run

COMMAND = [sys.executable, "-m", "dicom_secure_node"]
PYDICOM = Path(pydicom.data.__file__).parent / "test_files"
CT, MR, SR = (PYDICOM / name for name in ("CT_small.dcm", "MR_small.dcm", "test-SR.dcm"))

pytestmark = pytest.mark.timeout(180)


def dcmsign(folder: Path, by: str, source: Path, target: Path, *words: str) -> Path:
    """Sign with DCMTK: everything, SHA-256, base profile unless `words` say otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    key = [folder / f"{by}.key", folder / f"{by}.crt"]
    run(["dcmsign", *(words or ("+pb", "+m2")), "+s", *key, source, target], check=True)
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with authorities, lists, and files that others signed.

    Below signed/: ct.dcm, mr.dcm (ada), changed.dcm (ada, changed since), low.dcm (an
    intermediate's), stranger.dcm (an unknown authority's), old.dcm (an expired certificate),
    weak.dcm (SHA-1).
    """
    made = tmp_path_factory.mktemp("verify")
    signed = made / "signed"
    ca = Ca()
    ca.anchor(made / "ca.crt")
    ada = ca.write(made, "ada", key="rsa")
    ca.write(made, "old", key="rsa", expired=True)
    ca.crl(made / "ca.crl")
    ca.crl(made / "stale.crl", expired=True)
    ca.crl(made / "ada.crl", revoked=[ada])
    below = ca.intermediate()
    below.anchor(made / "below.crt")
    below.write(made, "low", key="rsa")
    other = Ca("Other CA")
    other.anchor(made / "other.crt")
    other.write(made, "stranger", key="rsa")
    dcmsign(made, "ada", CT, signed / "ct.dcm")
    dcmsign(made, "ada", MR, signed / "mr.dcm")
    ds = pydicom.dcmread(dcmsign(made, "ada", CT, signed / "changed.dcm"))
    ds.PatientName = "Somebody^Else"
    ds.save_as(signed / "changed.dcm")
    dcmsign(made, "low", CT, signed / "low.dcm")
    dcmsign(made, "stranger", CT, signed / "stranger.dcm")
    dcmsign(made, "old", CT, signed / "old.dcm")
    dcmsign(made, "ada", CT, signed / "weak.dcm", "+pb", "+ms")
    return made


def verify(folder: Path, *words: str | Path, trust: str = "ca.crt") -> Any:
    return run([*COMMAND, "verify", "--trust", folder / trust, *words], timeout=110)


def rows(done: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


CASES: dict[str, tuple[str, list[str], int, str]] = {
    "good": ("ct.dcm", [], 0, "good: 257 of 257 elements signed by CN=ada,O=Test Hospital"),
    "changed since": ("changed.dcm", [], 1, "bad: signature: signed elements were changed"),
    "unknown authority": ("stranger.dcm", [], 1, "bad: signature: signer not trusted: unknown"),
    "two authorities": ("stranger.dcm", ["--trust", "other.crt"], 0, "good"),
    "authority below, not at hand": ("low.dcm", [], 1, "unknown issuer"),
    "authority below": ("low.dcm", ["--intermediate", "below.crt"], 0, "good"),
    "certificate expired when it signed": ("old.dcm", [], 1, "expired"),
    "not revoked": ("ct.dcm", ["--crl", "ca.crl"], 0, "good"),
    "revoked": ("ct.dcm", ["--crl", "ada.crl"], 1, "revoked on"),
    "a list that is out of date": ("ct.dcm", ["--crl", "stale.crl"], 1, "revocation not known"),
    "weak, and C.1 has us take it": ("weak.dcm", [], 0, "good"),
    "weak, and the site does not": ("weak.dcm", ["--refuse-weak"], 1, "too weak: SHA1"),
    "no certified time": ("ct.dcm", ["--policy", "require-timestamp"], 1, "no certified timestamp"),
    "everything signed is C.2 as well": ("ct.dcm", ["--policy", "require-creator"], 0, "good"),
    "no report": ("ct.dcm", ["--policy", "require-sr"], 1, "bad: neither an SR document"),
    "one has to satisfy both": (
        "ct.dcm",
        ["--policy", "require-creator", "--policy", "require-timestamp"],
        1,
        "no certified timestamp",
    ),
}


@pytest.mark.parametrize(("name", "words", "code", "line"), CASES.values(), ids=CASES)
def test_verdicts(folder: Path, name: str, words: list[str], code: int, line: str) -> None:
    files = [folder / word if (folder / word).exists() else word for word in words]
    path = folder / "signed" / name
    done = verify(folder, *files, path)
    assert (done.returncode, done.stderr) == (code, ""), done
    assert done.stdout.startswith(f"{path}: {'bad' if code else 'good'}: ") or line == "good"
    assert line in done.stdout
    assert len(done.stdout.splitlines()) == 1
    done = verify(folder, *files, "--json", path)
    (row,) = rows(done)
    assert (done.returncode, row["path"], row["valid"]) == (code, str(path), not code)
    assert bool(row["reasons"]) == bool(code)
    assert len(row["signatures"]) == 1


MADE_BY_DCMSIGN = {
    "MD5": (["+pc", "+mm"], CT, "require-creator"),
    "SHA-1": (["+pc", "+ms"], CT, "require-creator"),
    "RIPEMD-160, C.2": (["+pc", "+mr"], CT, "require-creator"),
    "SHA-256, C.2": (["+pc", "+m2"], MR, "require-creator"),
    "SHA-384, C.3": (["+pa", "+m3"], CT, "require-authorization"),
    "SHA-512, C.3": (["+pa", "+m5"], MR, "require-authorization"),
    "C.4": (["+pv", "+m2", "+sp", "5"], SR, "require-sr"),
    "a purpose": (["+pb", "+m2", "+sp", "13"], CT, "require-signature"),
    "a few elements": (["-pf", "+m2", "-t", "PatientName"], CT, "require-signature"),
}


@pytest.mark.parametrize(
    ("words", "source", "policy"), MADE_BY_DCMSIGN.values(), ids=MADE_BY_DCMSIGN
)
def test_C1_to_C4_what_dcmsign_signs(
    folder: Path, tmp_path: Path, words: list[str], source: Path, policy: str
) -> None:
    ds = pydicom.dcmread(source)
    if source is SR:  # a verified document, by more people than C.4 allows
        ds.VerifyingObserverSequence = ds.VerifyingObserverSequence[:1]
    ds.save_as(tmp_path / "given.dcm")
    path = dcmsign(folder, "ada", tmp_path / "given.dcm", tmp_path / "signed.dcm", *words)
    done = verify(folder, "--policy", policy, path)
    assert (done.returncode, done.stderr) == (0, ""), done


def test_no_signature(folder: Path) -> None:
    done = verify(folder, CT)
    assert (done.returncode, done.stdout) == (
        1,
        f"{CT}: bad: no digital signature of the main data set (require-signature)\n",
    )
    done = verify(folder, "--policy", "verify-if-present", CT)
    assert (done.returncode, done.stdout) == (0, f"{CT}: good: it has no signature\n")


def test_an_item_that_is_signed_is_no_signature_of_the_document(
    folder: Path, tmp_path: Path
) -> None:
    key = [folder / "ada.key", folder / "ada.crt"]
    item = ["+si", *key, "ContentSequence[1]"]  # DCMTK counts from 0
    run(["dcmsign", "+pb", "+m2", *item, SR, tmp_path / "sr.dcm"], check=True)
    done = verify(folder, "--policy", "verify-if-present", tmp_path / "sr.dcm")
    assert done.returncode == 0, done
    assert "good: item (0040,A730)[2], " in done.stdout
    assert verify(folder, tmp_path / "sr.dcm").returncode == 1


def test_a_folder_answers_for_every_file_in_order(folder: Path, tmp_path: Path) -> None:
    wanted = {}
    for n, name in enumerate(("ct", "changed", "mr", "stranger", "ct", "mr")):
        path = tmp_path / "study" / str(n % 2) / f"{n}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(folder / "signed" / f"{name}.dcm")
        wanted[path] = name in ("ct", "mr")
    odd = {
        "cut.dcm": (folder / "signed" / "ct.dcm").read_bytes()[:20_000],
        "empty": b"",
        "note\n.txt": b"no DICOM",
        "random": b"\0" * 128 + b"DICM" + bytes(range(256)),
    }
    for name, content in odd.items():
        (tmp_path / "study" / name).write_bytes(content)
        wanted[tmp_path / "study" / name] = False
    done = verify(folder, "--json", tmp_path / "study")
    assert (done.returncode, done.stderr) == (1, "")
    told = {Path(row["path"]): row for row in rows(done)}
    assert list(told) == sorted(wanted)
    assert {path: row["valid"] for path, row in told.items()} == wanted
    for name in odd:
        row = told[tmp_path / "study" / name]
        assert row["problem"] or row["signatures"] == []
        assert row["reasons"]
    done = verify(folder, tmp_path / "study")
    assert done.stdout.splitlines()[-1] == "4 of 10 files good (require-signature)"
    assert len(done.stdout.splitlines()) == 11


def test_what_is_in_a_report(folder: Path) -> None:
    done = verify(folder, "--report", "--crl", folder / "ca.crl", folder / "signed" / "ct.dcm")
    assert done.returncode == 0, done
    lines = [line.strip() for line in done.stdout.splitlines()]
    for line in (
        "stands in             the main data set",
        "elements unchanged    yes",
        "made with the key     yes",
        "signer                CN=ada,O=Test Hospital",
        "key, digest           RSA 2048, SHA256",
        "certified time        none: the time is the signer's word",
        "signer trusted        yes",
        "now                   certificate good, revocation good",
        "profiles met          base (C.1), creator (C.2), authorization (C.3)",
        "not covered           0 elements",
    ):
        assert line in lines
    assert max(map(len, lines)) <= 100
    done = verify(folder, "--report", folder / "signed" / "changed.dcm", CT)
    assert done.returncode == 1
    assert "elements unchanged    NO" in done.stdout
    assert "because               signature: signed elements were changed" in done.stdout
    assert "signatures            none\n" in done.stdout


def test_what_is_in_a_row(folder: Path) -> None:
    (row,) = rows(verify(folder, "--json", folder / "signed" / "ct.dcm"))
    (one,) = row["signatures"]
    assert row["sop_class"] == "1.2.840.10008.5.1.4.1.1.2"
    assert (one["intact"], one["genuine"], one["trusted"], one["valid"]) == (True,) * 4
    assert one["signer"] == "CN=ada,O=Test Hospital"
    assert one["path"]["chain"] == ["CN=ada,O=Test Hospital", "CN=Test CA,O=Test Hospital"]
    assert one["unsigned"] == []
    assert "(0010,0010)" in one["signed"]


USAGE: dict[str, tuple[list[str], str]] = {
    "no authority": (["CT"], "wanted --trust CA.pem: the certificate of the authority"),
    "no such authority": (["--trust", "nothing.crt", "CT"], "nothing.crt: no such file"),
    "an authority that is none": (["--trust", "CT", "CT"], "wanted a certificate in PEM or DER"),
    "a list that is none": (["--trust", "CA", "--crl", "CA", "CT"], "wanted a CRL"),
    "an answer that is none": (["--trust", "CA", "--ocsp", "CT", "CT"], "no OCSP answer"),
    "unknown policy": (["--trust", "CA", "--policy", "strict", "CT"], "invalid choice: 'strict'"),
    "nobody looks": (["--trust", "CA", "--policy", "ignore", "CT"], "invalid choice: 'ignore'"),
    "no such file": (["--trust", "CA", "nothing.dcm"], "nothing.dcm: No such file"),
    "report and rows": (["--trust", "CA", "--json", "--report", "CT"], "not allowed with"),
}


@pytest.mark.parametrize(("words", "reason"), USAGE.values(), ids=USAGE)
def test_usage_errors(folder: Path, words: list[str], reason: str) -> None:
    places = {"CT": CT, "CA": folder / "ca.crt"}
    done = run([*COMMAND, "verify", *(places.get(word, word) for word in words)])
    assert (done.returncode, done.stdout) == (2, ""), done
    assert reason in done.stderr
    assert done.stderr.splitlines()[-1].startswith("dicom-secure-node")


def test_whoever_reads_may_go_away(folder: Path, tmp_path: Path) -> None:
    for n in range(200):
        (tmp_path / f"{n:03}.dcm").symlink_to(folder / "signed" / "ct.dcm")
    words = [*COMMAND, "verify", "--trust", folder / "ca.crt", "--json", tmp_path]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(60) == 1
