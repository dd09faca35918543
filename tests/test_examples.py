"""The programs in ``examples/``, run as the documentation says, with peers that are not ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from lxml import etree
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from dicom_secure_node.audit.validate import validate
from dicom_secure_node.commands.home import make_home
from dicom_secure_node.pki.signers import load_signer
from dicom_secure_node.signatures.profiles import BASE
from dicom_secure_node.signatures.sign import Order, sign_file
from tests.certs import Ca
from tests.parts import Part, run

EXAMPLES = Path(__file__).parent.parent / "examples"
OURS = (sys.executable, "-m", "dicom_secure_node")
CT = Path(str(get_testdata_file("CT_small.dcm")))
MR = Path(str(get_testdata_file("MR_small.dcm")))

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first `serve` makes; keys take a while, so it is made once."""
    home = tmp_path_factory.mktemp("made") / "secure-node"
    make_home(home, 0)
    return home


@pytest.fixture
def home(made_home: Path, tmp_path: Path) -> Path:
    """A home of the test's own."""
    return Path(shutil.copytree(made_home, tmp_path / "secure-node"))


def change(home: Path, old: str, new: str) -> None:
    """Replace a text of ``node.toml`` that has to be there."""
    file = home / "node.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@contextmanager
def running(name: str, *words: str | Path) -> Iterator[int]:
    """Run an example that prints its port and ends with its standard input; yield the port."""
    argv = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
        process.stdin.close()
        assert process.wait(60) == 0
    finally:
        process.stdout.close()
        if process.poll() is None:
            process.kill()
            process.wait()


@contextmanager
def serving(home: Path, log: Path) -> Iterator[int]:
    """Run `serve` where Python finds the examples; yield its port."""
    env = {**os.environ, "PYTHONPATH": str(EXAMPLES)}
    part = Part([*OURS, "serve", "--home", home], log=log, env=env, ready=lambda: _port(log))
    with part:
        yield int(_port(log))


def _port(log: Path) -> str:
    found = re.search(r"listening on \S+:(\d+) ", log.read_text())
    return found[1] if found else ""


def audited(home: Path) -> str:
    """Return every audit message of a home."""
    lines = [
        line
        for file in sorted((home / "audit").glob("*.ndjson"))
        for line in file.read_text().splitlines()
    ]
    return "\n".join(json.loads(line)["xml"] for line in lines)


def dcmtk_tls(home: Path) -> Sequence[str | Path]:
    """Return the TLS options of DCMTK's programs for a home."""
    pki = home / "pki"
    return ("+tls", pki / "client.key", pki / "client.crt", "+cf", pki / "ca.crt")


@pytest.mark.parametrize("archive", [True, False], ids=["beside the archive", "in its place"])
def test_an_scp_of_ones_own_stores_what_every_gate_let_through(
    home: Path, tmp_path: Path, archive: bool
) -> None:
    if not archive:
        change(home, '"storage", ', "")
    received = tmp_path / "received"
    with running("embed_storage_scp.py", home / "node.toml", received) as port:
        run(["storescu", *dcmtk_tls(home), "127.0.0.1", str(port), CT], check=True)
        run([*OURS, "send", "127.0.0.1", str(port), "--credential", home / "pki", MR], check=True)
        assert run(["storescu", "127.0.0.1", str(port), CT]).returncode, "let in without TLS"
    kept = {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, received.glob("*.dcm"))}
    assert set(kept) == {str(pydicom.dcmread(path).SOPInstanceUID) for path in (CT, MR)}
    assert kept[str(pydicom.dcmread(MR).SOPInstanceUID)] == pydicom.dcmread(MR)
    assert len(list((home / "archive").glob("instances/*/*.dcm"))) == (2 if archive else 0)
    assert "not TLS: found a plain DICOM A-ASSOCIATE-RQ" in audited(home)


def test_a_plugin_of_ones_own_refuses_a_modality(home: Path, tmp_path: Path) -> None:
    change(home, '"storage", ', '"own_plugin:NoUltrasound", "storage", ')
    ultrasound = pydicom.dcmread(CT)
    ultrasound.Modality = "US"
    ultrasound.SOPInstanceUID = ultrasound.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ultrasound.save_as(tmp_path / "us.dcm")
    log = tmp_path / "log"
    with serving(home, log) as port:
        send = [*OURS, "send", "127.0.0.1", str(port), "--credential", home / "pki"]
        run([*send, CT], check=True)
        refused = run([*send, "--json", tmp_path / "us.dcm"])
    assert "takes no IVUS, US" in log.read_text()
    assert (refused.returncode, json.loads(refused.stdout)["status"]) == (1, "0xC002")
    assert len(list((home / "archive").glob("instances/*/*.dcm"))) == 1
    assert "this node takes no ultrasound" in audited(home)


def test_A5_a_program_reports_events_of_its_own(home: Path) -> None:
    query = ("-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=PID-0042")
    with running("report_events.py", home / "node.toml") as port:
        run(["findscu", *dcmtk_tls(home), *query, "127.0.0.1", str(port)], check=True)
    messages = [etree.fromstring(line) for line in audited(home).splitlines()]
    by_event = {one.find("EventIdentification/EventID").get("csd-code"): one for one in messages}
    for one in messages:
        report = validate(etree.tostring(one))
        assert report.valid, report
    asked = b64decode(by_event["110112"].findtext(".//ParticipantObjectQuery"))
    assert b"PID-0042" in asked
    (medium,) = by_event["110106"].xpath(".//ActiveParticipant[MediaIdentifier]")
    assert medium.get("AlternativeUserID") == "DISC 4711"
    assert (
        by_event["110105"].xpath("string(.//@ParticipantObjectID)") == "1.2.826.0.1.3680043.8.498.1"
    )


def test_B5_a_backend_of_ones_own_decides_on_passcodes(home: Path, tmp_path: Path) -> None:
    (tmp_path / "right").write_text("of the day\n")
    (tmp_path / "wrong").write_text("of yesterday\n")
    with running("identity_backend.py", home / "node.toml") as port:
        echo = [*OURS, "echo", "127.0.0.1", str(port), "--credential", home / "pki"]
        ada = [*echo, "--ask-response", "--user", "ada", "--passcode-file"]
        run([*ada, tmp_path / "right"], check=True)
        for refused in ([*ada, tmp_path / "wrong"], echo):
            done = run(refused)
            assert (done.returncode, "1/2/1" in done.stderr) == (1, True), done.stderr
    assert "is not on duty, or has the wrong word" in audited(home)
    assert "no user identity was sent and one is required" in audited(home)


def test_B5_a_file_is_sent_by_a_user_whom_the_peer_confirms(home: Path, tmp_path: Path) -> None:
    change(home, 'identity = "supports"', 'identity = "required"')
    add = [*OURS, "user", "add", "--home", home, "ada"]
    run(add, stdin="secret\n", check=True)
    send = [sys.executable, EXAMPLES / "send_with_identity.py", "127.0.0.1"]
    with serving(home, tmp_path / "log") as port:
        words = [*send, str(port), home / "pki", "ada", CT]
        done = run(words, stdin="secret\n")
        refused = run(words, stdin="wrong\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("TLSv1.3, ")
    assert "status 0x0000" in done.stdout
    assert refused.returncode
    assert "1/2/1" in refused.stderr
    assert len(list((home / "archive").glob("instances/*/*.dcm"))) == 1


def test_C1_a_program_looks_before_it_uses(tmp_path: Path) -> None:
    ca = Ca()
    anchor, ada = ca.anchor(tmp_path / "ca.crt"), ca.write(tmp_path, "ada", key="rsa")
    program = [sys.executable, EXAMPLES / "sign_and_verify.py"]
    ours = tmp_path / "ours.dcm"
    run([*program, "sign", ada.key, ada.crt, CT, ours], check=True)
    run(["dcmsign", "+rc", "+cf", anchor, ours], check=True)
    # The minimum of C.2 has no Pixel Spacing.
    key = ["--key", ada.key, "--cert", ada.crt]
    run([*OURS, "sign", *key, "--output", tmp_path / "c2", CT], check=True)
    used = run([*program, "use", anchor, ours])
    assert (used.returncode, used.stdout) == (0, "signed by CN=ada,O=Test Hospital\n")
    silent = run([*program, "use", anchor, tmp_path / "c2" / CT.name])
    assert (silent.returncode, silent.stdout) == (1, "not used: nobody signed the Pixel Spacing\n")
    unsigned = run([*program, "use", anchor, CT])
    assert unsigned.returncode == 1
    assert "not used: no digital signature" in unsigned.stdout


def test_C1_a_program_uses_what_was_signed_and_nothing_else(tmp_path: Path) -> None:
    ca = Ca()
    anchor, ada = ca.anchor(tmp_path / "ca.crt"), ca.write(tmp_path, "ada", key="rsa")
    everything = [int(element.tag) for element in pydicom.dcmread(CT)]
    signed = tmp_path / "signed.dcm"
    with signed.open("wb") as out:
        order = Order(BASE, without=tuple(tag for tag in everything if tag != 0x00100020))
        sign_file(CT, out, load_signer(ada.key, ada.crt), order)
    program = [sys.executable, EXAMPLES / "signed_content.py", anchor]
    used = run([*program, signed], check=True)
    assert used.stdout.splitlines()[1:] == ["Patient ID: 1CT1", "Pixel Spacing: nobody says"]
    unsigned = run([*program, CT])
    assert unsigned.returncode == 1
    assert unsigned.stdout.startswith("not used: no digital signature of the main data set")


def test_every_example_is_short_and_shown_in_the_documentation() -> None:
    pages = "".join(page.read_text() for page in (EXAMPLES.parent / "docs").glob("*.md"))
    for example in EXAMPLES.glob("*.py"):
        assert len(example.read_text().splitlines()) < 60, example
        assert f"../examples/{example.name}" in pages, example
