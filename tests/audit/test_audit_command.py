"""``audit validate``: verdicts, exit codes, and what a machine reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_secure_node.audit.trail import AuditTrail
from tests.audit.samples import SOURCE, every_kind, octets

ROOT = Path(__file__).parents[2]
GOOD = octets(every_kind()["instances arrived"])
BAD = GOOD.replace(b'UserIsRequestor="true"', b'UserIsRequestor="TRUE"')


def audit(*words: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-m", "dicom_secure_node", "audit", *map(str, words)]
    return subprocess.run(argv, input=stdin, capture_output=True, cwd=ROOT, check=False)


def verdicts(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_good_and_bad_files(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(GOOD)
    (tmp_path / "b.xml").write_bytes(BAD)
    assert audit("validate", tmp_path / "a.xml").returncode == 0
    done = audit("validate", "--json", tmp_path)
    assert done.returncode == 1
    good, bad = verdicts(done)
    assert (good["path"], good["valid"], good["dialect"]) == (str(tmp_path / "a.xml"), True, None)
    assert good["problems"] == good["own_rules"] == []
    assert bad["valid"] is False
    assert bad["problems"] == [
        {
            "rule": "A.5.1.1.boolean",
            "clause": "PS3.15 A.5.1.1",
            "says": "a boolean is true, false, 1 or 0, in lower case",
            "where": "/AuditMessage/ActiveParticipant[1]/@UserIsRequestor",
            "found": "'TRUE'",
            "wanted": "true, false, 1 or 0",
            "line": 1,
            "dialect": None,
            "change": None,
        }
    ]
    words = audit("validate", tmp_path).stdout.decode()
    assert "NOT VALID" in words
    assert "A.5.1.1.boolean" in words


def test_our_own_store_is_judged_line_by_line(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "audit", SOURCE)
    for message in every_kind().values():
        trail.emit(message)
    trail.stop()
    done = audit("validate", "--json", tmp_path)
    assert done.returncode == 0
    path = tmp_path / "audit" / "audit-0000000001.ndjson"
    want = [f"{path}:{n}" for n in range(1, len(every_kind()) + 1)]
    assert [one["path"] for one in verdicts(done)] == want
    path.write_bytes(path.read_bytes() + b'{"seq": 99}\nno json\n{"xml": "<a/>"}\n\n')
    done = audit("validate", "--json", path)
    assert done.returncode == 1
    assert [one["valid"] for one in verdicts(done)[-4:]] == [True, False, False, False]


def test_stdin(tmp_path: Path) -> None:
    assert audit("validate", "-", stdin=GOOD).returncode == 0
    assert audit("validate", "--json", "-", stdin=b"").returncode == 1
    (tmp_path / "junk.xml").write_bytes(b"\x00\xff")
    assert audit("validate", tmp_path / "junk.xml").returncode == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["validate"], 2),
        (["validate", "--no-such-option", "-"], 2),
        (["validate", "no-such-file.xml"], 2),
        (["no-such-action"], 2),
        (["validate", "--help"], 0),
    ],
    ids=["no file", "unknown option", "missing file", "unknown action", "help"],
)
def test_usage(words: list[str], code: int) -> None:
    done = audit(*words)
    assert done.returncode == code
    assert done.stdout or done.stderr


def test_an_empty_folder_is_no_success(tmp_path: Path) -> None:
    assert audit("validate", tmp_path).returncode == 1


def test_a_missing_file_is_said_before_anything_is_judged(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(GOOD)
    done = audit("validate", "--json", tmp_path / "a.xml", tmp_path / "b.xml")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.count(b"\n") == 1
