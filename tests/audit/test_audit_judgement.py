"""``audit validate`` on what collectors keep and other products write: input, report, exit code."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from dicom_secure_node.audit.reading import summarise
from dicom_secure_node.audit.syslog import NILVALUE, Header, frame, opening, syslog_message
from tests import parts
from tests.audit.test_audit_command import audit, verdicts
from tests.audit.test_audit_validate import CORPUS, GOOD

PRETTY = (CORPUS / "good" / "A.5.3.7.xml").read_text("utf-8")
FIELDS = Header("ws7", "viewer", "4711").fields()
SYSLOG = syslog_message(opening(85, "2026-11-22T10:15:30.150Z", FIELDS), NILVALUE, PRETTY.encode())
BAD = SYSLOG.replace(b'"true"', b'"TRUE"')
OTHER = b"<86>1 2026-11-22T10:15:31Z ws7 sshd 99 - - Accepted publickey for ada\n"

# sentence: (stdin, labels, valid)
STDIN = {
    "one document": (PRETTY.encode(), ["-"], [True]),
    "one document in UTF-16": (PRETTY.encode("utf-16"), ["-"], [True]),
    "one syslog message": (SYSLOG, ["-"], [True]),
    "frames": (frame(SYSLOG) + frame(BAD), ["-:1", "-:2"], [True, False]),
    "lines of a node's store": (
        b"".join(json.dumps({"xml": xml}).encode() + b"\n" for xml in GOOD.values()),
        [f"-:{n}" for n in range(1, 16)],
        [True] * 15,
    ),
    "a log with messages of other programs": (
        OTHER + SYSLOG.replace(b"\n", b"#012") + b"\n" + OTHER + BAD,
        ["-:2", "-:4"],
        [True, False],
    ),
    "frames that break off": (frame(SYSLOG) + frame(SYSLOG)[:200], ["-:1", "-:2"], [True, False]),
}


@pytest.mark.parametrize(("octets", "labels", "valid"), STDIN.values(), ids=STDIN)
def test_stdin_holds_one_message_or_many(
    octets: bytes, labels: list[str], valid: list[bool]
) -> None:
    done = audit("validate", "--json", "-", stdin=octets)
    assert [one["path"] for one in verdicts(done)] == labels
    assert [one["valid"] for one in verdicts(done)] == valid
    assert done.returncode == (0 if all(valid) else 1)


def test_nothing_but_other_messages_is_no_success() -> None:
    done = audit("validate", "-", stdin=OTHER * 2)
    assert done.returncode == 1
    assert done.stdout == b"0 messages, 0 not valid, 2 syslog messages of other kinds\n"


def test_what_rsyslog_kept_is_judged_and_read(tmp_path: Path) -> None:
    """Real rsyslog, datagrams: line feeds arrive in its file as ``#012``."""
    with parts.rsyslog(tmp_path, udp=True) as part, socket.socket(type=socket.SOCK_DGRAM) as udp:
        for message in (SYSLOG, BAD, OTHER.strip()):
            udp.sendto(message, ("127.0.0.1", part.port))
        log = tmp_path / "arrived.log"
        parts.wait_until(lambda: log.exists() and log.read_bytes().count(b"\n") == 3, "three lines")
    assert b"#012" in log.read_bytes()
    good, bad = verdicts(audit("validate", "--json", log))
    assert (good["path"], good["valid"], good["problems"]) == (f"{log}:1", True, [])
    assert bad["path"] == f"{log}:2"
    # Lines are counted inside the message, where its sender put them.
    places = {(one["rule"], one["line"]) for one in bad["problems"]}  # type: ignore[attr-defined]
    assert places == {("A.5.1.1.boolean", 5)}
    assert summarise(log.read_bytes().splitlines()[0]) == summarise(PRETTY.encode())


def test_the_verdict_comes_first_and_the_dialect_is_named() -> None:
    done = audit("validate", CORPUS / "dialects" / "dcm4che.xml")
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 1
    assert lines[0].endswith(
        "dcm4che.xml: NOT VALID: 9 breaches of PS3.15, 9 of them habits of dcm4che"
    )
    assert lines[1] == "  this is dcm4che and dcm4chee-arc, of which PS3.15 A.5 differs in:"
    assert "  breaks PS3.15, as dcm4che does:" in lines
    assert any("to change: write the root as <AuditMessage> alone" in line for line in lines)
    assert not any("breaks even" in line for line in lines)


def test_what_breaks_even_the_dialect_has_a_group_of_its_own(tmp_path: Path) -> None:
    xml = (CORPUS / "dialects" / "rfc3881.xml").read_text("utf-8")
    xml = xml.replace('EventOutcomeIndicator="0"', 'EventOutcomeIndicator="5"')
    xml = xml.replace('NetworkAccessPointTypeCode="2"', 'NetworkAccessPointTypeCode="5"')
    (tmp_path / "a.xml").write_text(xml)
    words = audit("validate", tmp_path / "a.xml").stdout.decode()
    assert "17 breaches of PS3.15, 16 of them habits of RFC 3881; 2 break even RFC 3881" in words
    _, even = words.split("  breaks even RFC 3881:\n")
    assert "A.5.1.1:EventIdentification.EventOutcomeIndicator: " in even
    assert "(RFC 3881 5.3)" in even
    (found,) = verdicts(audit("validate", "--json", tmp_path / "a.xml"))
    assert found["dialect"] == "RFC 3881"
    by_dialect = [one["dialect"] for one in found["problems"]]  # type: ignore[attr-defined]
    assert (by_dialect.count("RFC 3881"), by_dialect.count(None)) == (16, 1)
    assert [one["rule"] for one in found["own_rules"]] == ["RFC 3881 5.3"]  # type: ignore[attr-defined]


def test_advice_is_told_and_costs_nothing(tmp_path: Path) -> None:
    xml = GOOD["A.5.3.9"].replace('UserID="cart7"', 'UserID="cart7" UserName=""')
    done = audit("validate", "-", stdin=xml.encode())
    assert done.returncode == 0
    assert "-: valid\n  advice, no breach:\n    A.5.2.no_empty: " in done.stdout.decode()


def test_the_largest_size_is_the_callers_choice(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(PRETTY)
    assert audit("validate", "--max-size", "100000", path).returncode == 0
    done = audit("validate", "--max-size", "500", path)
    assert done.returncode == 1
    assert b"found more than 500 octets, wanted at most 500" in done.stdout
    for wrong in ("0", "-1", "many"):
        assert audit("validate", "--max-size", wrong, path).returncode == 2


def test_a_hostile_message_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    xml = GOOD["A.5.3.9"].replace("Network Entry", "&#155;31m\u202e")
    done = audit("validate", "-", stdin=xml.encode())
    assert done.returncode == 1
    text = done.stdout.decode()
    assert all(c.isprintable() or c == "\n" for c in text)
