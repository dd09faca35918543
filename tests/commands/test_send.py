"""``send`` and ``echo`` as somebody at a shell uses them."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pydicom.data
import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

from dicom_secure_node.elements.part10 import FileMeta, encode_header, read_header
from dicom_secure_node.node.scu import associate
from dicom_secure_node.node.sending import Instance, Sent, read_instance, send_files
from tests.certs import Ca
from tests.parts import free_port, orthanc, run, storescp, wait_until

COMMAND = [sys.executable, "-m", "dicom_secure_node"]
CT = str(CTImageStorage)
EXPLICIT = "1.2.840.10008.1.2.1"
PYDICOM = Path(pydicom.data.__file__).parent / "test_files"
ODD = {"rtplan_truncated.dcm"}  # storescp breaks the association off, rightly


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return bytes((tag >> 16, 0, tag & 255, 0)) + vr + len(value).to_bytes(2, "little") + value


def write_instance(path: Path, uid: str = "1.2.3", sop_class: str = CT, **meta: Any) -> Path:
    """Write a small instance in explicit little endian."""
    header = FileMeta(
        **(
            {"sop_class": sop_class, "sop_instance": uid, "transfer_syntax": EXPLICIT}
            | {"implementation_class": "1.2", "implementation_version": "T"}
            | meta
        )
    )
    body = element(0x080016, b"UI", sop_class.encode()) + element(0x080018, b"UI", uid.encode())
    path.write_bytes(encode_header(header) + body)
    return path


def send(port: int, *words: str | Path, stdin: str | None = None, host: str = "127.0.0.1") -> Any:
    return run([*COMMAND, "send", host, str(port), *words], stdin=stdin, timeout=110)


def rows(done: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def body_digest(path: Path) -> str:
    with path.open("rb") as file:
        read_header(file)
        return hashlib.sha256(file.read()).hexdigest()


@contextmanager
def acceptor(handlers: list[Any], syntax: str = EXPLICIT) -> Iterator[tuple[Any, int]]:
    """Yield a pynetdicom server that takes CT images, and its port."""
    ae = AE()
    ae.add_supported_context(CT, syntax)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield server, server.server_address[1]
    finally:
        ae.shutdown()


def opener(port: int) -> Callable[..., Any]:
    call = partial(associate, "127.0.0.1", port, calling="US", called="THEM")
    return lambda contexts: call(contexts=contexts)


# -- the bytes


@pytest.mark.parametrize("over_tls", [False, True], ids=["plain", "TLS"])
def test_every_byte_arrives_as_it_lies_in_the_file(tmp_path: Path, over_tls: bool) -> None:
    options: list[str | Path] = ["+B", "+xa", "-pm", "+uf"]
    words: list[str | Path] = ["--plain"]
    if over_tls:
        ca, words = Ca(), ["--credential", tmp_path]
        node, anchor = ca.write(tmp_path, "node"), ca.anchor(tmp_path / "ca.crt")
        ca.write(tmp_path, "client")
        options += ["+tls", node.key, node.crt, "+cf", anchor]
    with storescp(tmp_path, *options) as peer:
        done = send(peer.port, *words, "--json", PYDICOM)
    assert done.returncode == 1, "some of the files are no DICOM"
    told = rows(done)
    assert len(told) == sum(1 for path in PYDICOM.rglob("*") if path.is_file())
    stored = [Path(row["path"]) for row in told if row["outcome"] == "stored"]
    assert len(stored) >= 145
    sent = Counter(map(body_digest, stored))
    assert Counter(map(body_digest, (tmp_path / "received").iterdir())) == sent
    for row in told:
        # DCMTK takes everything but the deflated image, and what is cut off.
        if row["outcome"] in ("lost", "refused"):
            assert Path(row["path"]).name in ODD | {"image_dfl.dcm"}, row


def test_orthanc_takes_what_we_send(tmp_path: Path) -> None:
    web = free_port()
    with orthanc(tmp_path, HttpPort=web) as peer:
        done = send(peer.port, "--plain", "--called", "ORTHANC", "--json", PYDICOM / "CT_small.dcm",
                    PYDICOM / "MR_small.dcm", PYDICOM / "JPEG2000.dcm")  # fmt: skip
        assert done.returncode == 0, done
        with urlopen(f"http://127.0.0.1:{web}/instances") as answer:
            assert len(json.load(answer)) == 3
        echo = run([*COMMAND, "echo", "127.0.0.1", str(peer.port), "--plain"], check=True)
        assert "echo answered (without TLS" in echo.stdout


def test_PS38_9322_more_kinds_than_one_association_can_hold(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for n in range(1, 131):
        write_instance(files / f"{n:03}.dcm", f"1.2.3.{n}", f"1.2.826.0.1.{n}")
    with storescp(tmp_path, "+B", "-pm", "-v") as peer:
        done = send(peer.port, "--plain", files)
    assert (done.returncode, done.stdout) == (0, "130 of 130 files stored\n")
    assert len(list((tmp_path / "received").iterdir())) == 130
    assert peer.output.count("Association Received") == 2


# -- one bad file does not stop the others


def test_bad_files_are_told_and_the_rest_is_sent(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    write_instance(folder / "a.dcm", "1.2.1")
    (folder / "empty").write_bytes(b"")
    (folder / "note.txt").write_text("DICM")
    write_instance(folder / "no-uid.dcm", "")
    write_instance(folder / "no-digits.dcm", "../../etc/passwd")
    write_instance(folder / "long-uid.dcm", "1." + "2" * 63)
    write_instance(folder / "syntax.dcm", "1.2.2", transfer_syntax="1.2.840.10008.1.2.4.90")
    write_instance(folder / "class.dcm", "1.2.3", "1.2.3.4")
    write_instance(folder / "DICOMDIR", "1.2.4", "1.2.840.10008.1.3.10")
    write_instance(folder / "z\n.dcm", "1.2.9")
    with storescp(tmp_path, "+B") as peer:
        told = {Path(row["path"]).name: row for row in rows(
            send(peer.port, "--plain", "--json", folder))}  # fmt: skip
        human = send(peer.port, "--plain", folder)
    assert {name: row["outcome"] for name, row in told.items()} == {
        "a.dcm": "stored",
        "empty": "unsendable",
        "note.txt": "unsendable",
        "no-uid.dcm": "unsendable",
        "no-digits.dcm": "unsendable",
        "long-uid.dcm": "unsendable",
        "syntax.dcm": "unsendable",
        "class.dcm": "unsendable",
        "DICOMDIR": "skipped",
        "z\n.dcm": "stored",
    }
    assert told["a.dcm"] | {"path": ""} == {
        "path": "", "outcome": "stored", "ok": True, "status": "0x0000", "text": "",
        "sop_instance": "1.2.1",
    }  # fmt: skip
    assert "found no DICM" in told["empty"]["text"]
    assert "(0002,0003): found no value" in told["no-uid.dcm"]["text"]
    assert "passwd" not in told["no-digits.dcm"]["text"]
    assert "does not take CT Image Storage in JPEG 2000" in told["syntax.dcm"]["text"]
    assert human.returncode == 1
    assert human.stdout.splitlines()[-1] == "2 of 10 files stored, 7 unsendable, 1 skipped"
    assert human.stderr == ""


STATUSES = {
    0x0000: ("stored", ""),
    0xB000: ("warning", "warning 0xB000: Coercion of Data Elements"),
    0xA700: ("refused", "failure 0xA700: Refused: Out of Resources"),
    0xA900: ("refused", "failure 0xA900"),
    0xC000: ("refused", "failure 0xC000: Cannot Understand"),
    0x0124: ("refused", "failure 0x0124: Refused: Not Authorised"),
    0x0111: ("refused", "failure 0x0111: Duplication SOP Instance"),
    0x9999: ("refused", "unknown 0x9999"),
}


def test_every_status_in_words(tmp_path: Path) -> None:
    answers = iter(STATUSES)
    handlers = [(evt.EVT_C_STORE, lambda event: next(answers))]
    files = [write_instance(tmp_path / f"{code:04X}.dcm", f"1.2.{code}") for code in STATUSES]
    with acceptor(handlers) as (_, port):
        sent = list(send_files(opener(port), files))
    for one, (code, (outcome, words)) in zip(sent, STATUSES.items(), strict=True):
        assert (one.status, one.outcome) == (code, outcome)
        assert one.text.startswith(words)


@pytest.mark.parametrize("when", ["--abort-during", "--abort-after"])
def test_a_peer_that_aborts_gets_the_next_file_on_a_new_association(
    tmp_path: Path, when: str
) -> None:
    files = [write_instance(tmp_path / f"{n}.dcm", f"1.2.{n}") for n in range(3)]
    with storescp(tmp_path, when) as peer:
        done = send(peer.port, "--plain", "--json", *files)
    assert done.returncode == 1
    assert [row["outcome"] for row in rows(done)] == ["lost"] * 3
    assert all("aborted the association" in row["text"] for row in rows(done))


def test_a_peer_that_goes_away_is_not_called_for_ever(tmp_path: Path) -> None:
    calls: list[str] = []

    def last_words(event: evt.Event) -> int:
        calls.append(event.request.AffectedSOPInstanceUID)
        if len(calls) == 2:
            server.server_close()
            event.assoc.abort()
        return 0

    files = [write_instance(tmp_path / f"{n}.dcm", f"1.2.{n}") for n in range(5)]
    with acceptor([(evt.EVT_C_STORE, last_words)]) as (server, port):
        sent = list(send_files(opener(port), files))
    assert [one.outcome for one in sent] == ["stored"] + ["lost"] * 4
    assert "aborted" in sent[1].text
    assert all("connection refused" in one.text for one in sent[2:])
    assert calls == ["1.2.0", "1.2.1"]


def test_a_file_that_vanishes_costs_that_file(tmp_path: Path) -> None:
    files = [write_instance(tmp_path / f"{n}.dcm", f"1.2.{n}") for n in range(3)]
    counts: list[int] = []

    def scanned(count: int) -> None:
        counts.append(count)
        files[1].unlink()

    with storescp(tmp_path, "+B") as peer:
        sent = list(send_files(opener(peer.port), files, scanned))
    assert [one.outcome for one in sent] == ["stored", "unsendable", "stored"]
    assert sent[1].text == "No such file or directory"
    assert counts == [3]


def test_stopping_half_way_aborts(tmp_path: Path) -> None:
    ended: list[str] = []
    handlers = [
        (evt.EVT_C_STORE, lambda event: 0),
        (evt.EVT_ABORTED, lambda event: ended.append("aborted")),
        (evt.EVT_RELEASED, lambda event: ended.append("released")),
    ]
    files = [write_instance(tmp_path / f"{n}.dcm", f"1.2.{n}") for n in range(3)]
    with acceptor(handlers) as (_, port):
        sending = send_files(opener(port), files)
        assert next(sending).outcome == "stored"
        sending.close()  # type: ignore[attr-defined]  # a generator
        assert len(list(send_files(opener(port), files))) == 3
    assert ended == ["aborted", "released"]


def test_ctrl_c(tmp_path: Path) -> None:
    files = [write_instance(tmp_path / f"{n}.dcm", f"1.2.{n}") for n in range(20)]
    with storescp(tmp_path, "--sleep-after", "1", "-v") as peer:
        words = [*COMMAND, "send", "127.0.0.1", str(peer.port), "--plain", "--json", *files]
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["outcome"] == "stored"
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
        wait_until(lambda: "Association Abort" in peer.output, "the A-ABORT")
    assert process.returncode == 130
    assert len(rest.splitlines()) < 10
    assert "Traceback" not in errors


# -- what may be sent


def test_read_instance(tmp_path: Path) -> None:
    path = write_instance(tmp_path / "a.dcm", "1.02.3")
    instance = read_instance(path)
    assert instance == Instance(path, CT, "1.02.3", EXPLICIT, instance.offset), "zeros are let pass"
    assert path.read_bytes()[instance.offset :][:4] == b"\x08\0\x16\0"


def test_what_is_left_to_do() -> None:
    outcomes = ("stored", "warning", "skipped", "refused", "unsendable", "lost")
    assert [Sent(Path(), outcome).ok for outcome in outcomes] == [True] * 3 + [False] * 3


# -- options and exit codes


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    folder = tmp_path / "pki"
    folder.mkdir()
    ca = Ca()
    ca.anchor(folder / "ca.crt")
    ca.write(folder, "client")
    return folder


USAGE: dict[str, tuple[list[str], str]] = {
    "neither TLS nor plain": ([], "one of the arguments --credential --plain is required"),
    "both": (["--plain", "--credential", "."], "not allowed with"),
    "unknown profile": (["--credential", "PKI", "--profile", "bcp"], "profile"),
    "retired profile": (["--credential", "PKI", "--profile", "aes"], "allow_retired"),
    "no such folder": (["--credential", "nowhere"], "nowhere: no such folder"),
    "folder without credential": (["--credential", "."], "client.crt"),
    "AE title too long": (["--plain", "--called", "A" * 17], "called AE title"),
    "passcode without user": (["--plain", "--passcode-file", "-"], "wanted --user too"),
    "response without user": (["--plain", "--ask-response"], "wanted --user too"),
    "passcode file missing": (["--plain", "--user", "a", "--passcode-file", "nofile"], "nofile"),
    "passcode empty": (["--plain", "--user", "a", "--passcode-file", "-"], "passcode is empty"),
    "user is empty": (["--plain", "--user", ""], "--user: user name is empty"),
}


@pytest.mark.parametrize(("words", "reason"), USAGE.values(), ids=USAGE)
def test_usage_errors(tmp_path: Path, pki: Path, words: list[str], reason: str) -> None:
    file = write_instance(tmp_path / "a.dcm")
    given = [str(pki) if word == "PKI" else word for word in words]
    argv = [*COMMAND, "send", "127.0.0.1", "104", *given, str(file)]
    done = run(argv, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert reason in done.stderr


@pytest.mark.parametrize("port", ["0", "65536", "-1", "dicom"])
def test_port(port: str) -> None:
    done = run([*COMMAND, "echo", "127.0.0.1", "--plain", "--", port])
    assert done.returncode == 2


def test_no_such_file() -> None:
    done = send(104, "--plain", "no-such.dcm")
    assert done.returncode == 2
    assert "no-such.dcm" in done.stderr


def test_encrypted_key_and_nobody_to_ask(tmp_path: Path) -> None:
    ca = Ca()
    ca.anchor(tmp_path / "ca.crt")
    ca.write(tmp_path, "client", passphrase=b"correct horse")
    done = send(104, "--credential", tmp_path, write_instance(tmp_path / "a.dcm"))
    assert done.returncode == 2
    assert "nobody is there to ask" in done.stderr


def test_nobody_there(tmp_path: Path) -> None:
    done = send(free_port(), "--plain", write_instance(tmp_path / "a.dcm"))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert "connection refused" in done.stderr


def test_refused(tmp_path: Path) -> None:
    with storescp(tmp_path, "--refuse") as peer:
        done = send(peer.port, "--plain", write_instance(tmp_path / "a.dcm"))
        echo = run([*COMMAND, "echo", "127.0.0.1", str(peer.port), "--plain"])
    for one in (done, echo):
        assert (one.returncode, one.stdout) == (1, "")
        assert "rejected permanent" in one.stderr


def test_nothing_to_send(tmp_path: Path) -> None:
    done = send(free_port(), "--plain", tmp_path)
    assert (done.returncode, done.stdout) == (1, "0 of 0 files stored\n")


# -- user identity


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_B5_passcode_is_sent_and_never_shown(tmp_path: Path, source: str) -> None:
    seen: list[tuple[bytes, bytes]] = []

    def identity(event: evt.Event) -> tuple[bool, None]:
        item = event.assoc.requestor.user_identity
        seen.append((item.primary_field, item.secondary_field))
        return False, None

    secret = tmp_path / "secret"
    secret.write_text("Pässwort\n")
    name = str(secret) if source == "file" else "-"
    file = write_instance(tmp_path / "a.dcm")
    with acceptor([(evt.EVT_USER_ID, identity)]) as (_, port):
        words = ["--plain", "--user", "ada", "--passcode-file", name]
        without = send(port, *words, file, stdin="Pässwort\n")
        assert without.returncode == 2
        assert "without TLS" in without.stderr
        assert not seen
        done = send(port, *words, "--allow-plain-passcode", file, stdin="Pässwort\n")
    assert seen == [(b"ada", "Pässwort".encode())]
    assert done.returncode == 1
    assert "the user identity may be why" in done.stderr
    assert "sswort" not in without.stderr + done.stderr + done.stdout


def test_D3337_a_peer_that_does_not_confirm_gets_nothing(tmp_path: Path) -> None:
    with storescp(tmp_path) as peer:
        words = ("--plain", "--user", "ada", "--ask-response")
        done = send(peer.port, *words, write_instance(tmp_path / "a.dcm"))
        assert not list((tmp_path / "received").iterdir())
        unasked = send(peer.port, *words[:3], tmp_path / "a.dcm")
    assert done.returncode == 1
    assert "without confirming the user identity" in done.stderr
    assert unasked.returncode == 0


# -- TLS


def test_echo_over_tls(tmp_path: Path, pki: Path) -> None:
    ca = Ca()
    node, anchor = ca.write(tmp_path, "node"), ca.anchor(pki / "ca.crt")
    ca.write(pki, "client")
    with storescp(tmp_path, "+tls", node.key, node.crt, "+cf", anchor) as peer:
        argv = [*COMMAND, "echo", "localhost", str(peer.port), "--credential", pki]
        done = run([*argv, "--json"], check=True)
        human = run([*argv, "--profile", "8996-mod", "--called", "PACS"], check=True)
        wrong = run([*argv, "--server-name", "pacs.example.org"])
        ca.crl(pki / "ca.crl", revoked=[node])
        revoked = run(argv)
    answer = json.loads(done.stdout)
    assert (answer["ok"], answer["status"], answer["tls"]["version"]) == (True, "0x0000", "TLSv1.3")
    assert answer["tls"]["subject"] == "CN=node,O=Test Hospital"
    assert "echo answered (TLSv1.3, " in human.stdout
    assert wrong.returncode == 1
    assert "error: wrong name" in wrong.stderr
    assert revoked.returncode == 1
    assert "error: revoked" in revoked.stderr
