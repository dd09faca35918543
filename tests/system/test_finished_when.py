"""The sentence this release is finished when it is true, piece by piece."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pydicom.data
import pydicom.filereader
import pytest
from pydicom.errors import InvalidDicomError

from dicom_secure_node.audit.validate import validate
from tests import parts
from tests.certs import Ca
from tests.system.running import LOGIN, TRANSFERRED, Node, Record, cli, data_set

DICOMDIR = "1.2.840.10008.1.3.10"

# How storescu is told to propose a transfer syntax; without, it would send another one.
PROPOSE = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
VERSIONS = {'duplicates = "same-only"': 'duplicates = "version"'}  # some files share a UID


def storable() -> dict[str, list[Path]]:
    """Return pydicom's test files that are Part 10 files of an instance, by transfer syntax."""
    found = defaultdict(list)
    folder = Path(str(pydicom.data.get_testdata_file("CT_small.dcm"))).parent
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        try:
            meta = pydicom.filereader.read_file_meta_info(path)
        except InvalidDicomError:
            continue
        sop_class = meta.get("MediaStorageSOPClassUID")
        if sop_class and sop_class != DICOMDIR and "TransferSyntaxUID" in meta:
            found[str(meta.TransferSyntaxUID)].append(path)
    return found


def digests(paths: Iterable[Path]) -> set[str]:
    """Return the SHA-256 of the data set of each file."""
    return {hashlib.sha256(data_set(path)).hexdigest() for path in paths}


def storescu(port: int, options: Sequence[str], paths: Sequence[Path]) -> tuple[int, int]:
    """Run DCMTK's storescu; return its exit code and how often it was told Success."""
    done = parts.run(["storescu", "-v", "-nh", "-R", *options, "127.0.0.1", str(port), *paths])
    said = done.stdout + done.stderr
    return done.returncode, said.count("Received Store Response (Success)")


def arrived(folder: Path) -> list[Record]:
    """Return the audit messages rsyslog has, which are valid and well framed."""
    log = folder / "arrived.log"
    found = []
    for line in log.read_bytes().splitlines() if log.exists() else ():
        head, mark, xml = line.partition(b"\xef\xbb\xbf")
        assert mark, line
        # RFC 5424: PRI, version 1, TIMESTAMP, HOSTNAME, APP-NAME, PROCID, MSGID, its number.
        wanted = (
            rb"<\d+>1 \S+Z \S+ dicom-secure-node \d+ DICOM\+RFC3881 \[meta sequenceId=\"\d+\"\] "
        )
        assert re.fullmatch(wanted, head), head
        report = validate(xml)
        assert report.valid, report.problems
        found.append(Record(xml.decode()))
    return found


@pytest.fixture
def repository(home: Path, tmp_path: Path) -> Iterator[parts.Part]:
    """A real audit record repository that wants a certificate of the home's CA."""
    pki = home / "pki"
    folder = tmp_path / "rsyslog"
    with parts.rsyslog(
        folder, ca=pki / "ca.crt", crt=pki / "node.crt", key=pki / "node.key"
    ) as part:
        yield part


def to_repository(port: int, more: str = "") -> str:
    """Return the table of a repository on this machine."""
    return f"""
[[audit.repository]]
name = "site"
host = "127.0.0.1"
port = {port}
trust = ["pki/ca.crt"]
credential = ["pki/node"]
{more}
"""


def test_storescu_sends_every_file_it_can_and_nothing_changes(
    home: Path, tmp_path: Path, repository: parts.Part
) -> None:
    """DCMTK's own storescp, writing bit for bit, is the judge of what storescu sent."""
    added = cli("user", "add", "--home", home, "ada", stdin="correct horse\n")
    assert added.returncode == 0, added.stderr
    pki, port = home / "pki", repository.port
    scp = parts.storescp(
        tmp_path, "+B", "+uf", "+xa", "+tls", pki / "node.key", pki / "node.crt", "+cf",
        pki / "ca.crt",
    )  # fmt: skip
    groups = storable()
    assert groups.keys() == PROPOSE.keys()
    total = 0
    with Node(home, to_repository(port), change=VERSIONS) as node, scp:
        for syntax, paths in groups.items():
            tls = [*node.credential(), PROPOSE[syntax]]
            user = ["-usr", "ada", "-pwd", "correct horse", "-rsp"]
            code, sent = storescu(node.port, [*tls, *user], paths)
            assert code == 0, syntax
            assert (code, sent) == storescu(scp.port, tls, paths), syntax
            total += sent
        kept = node.kept()
        assert kept.keys() == digests((tmp_path / "received").iterdir())
        assert total >= 140, "pydicom 3.0 brings 142 that storescu can send"

        index = (home / "archive" / "index.sqlite").as_uri() + "?mode=ro"
        with closing(sqlite3.connect(index, uri=True)) as database:
            rows = database.execute("SELECT DISTINCT tls, identity FROM instance").fetchall()
        assert {json.loads(tls)["version"] for tls, _ in rows} == {"TLSv1.3"}
        assert {identity for _, identity in rows} == {"ada"}

        folder = tmp_path / "rsyslog"
        parts.wait_until(
            lambda: (
                sum(one.instances for one in arrived(folder) if one.event == TRANSFERRED) >= total
            ),
            "every instance in the repository's messages",
        )
    moved = [one for one in arrived(folder) if one.event == TRANSFERRED]
    assert sum(one.instances for one in moved) == total
    assert all("ada" in one.users for one in moved)
    logins = [one for one in arrived(folder) if one.kind == LOGIN]
    assert len(logins) == len(groups)
    assert all(one.outcome == 0 for one in logins)
    verified = cli("archive", "verify", "--home", home)
    assert verified.returncode == 0, verified.stdout


def test_our_own_send_changes_no_byte_of_any_file(home: Path) -> None:
    """Also of those DCMTK cannot read; a file that breaks off is refused, by its status."""
    paths = [path for group in storable().values() for path in group]
    with Node(home, change=VERSIONS) as node:
        done = cli("send", "127.0.0.1", str(node.port), "--credential", home / "pki",
                   "--json", *paths)  # fmt: skip
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert {one["path"] for one in told} == {str(path) for path in paths}
        sent = [Path(one["path"]) for one in told if one["ok"]]
        assert node.kept().keys() == digests(sent)
    failed = {Path(one["path"]).name for one in told if not one["ok"]}
    assert failed == {
        "MR_truncated.dcm",  # these three break off
        "SC_rgb_jpeg.dcm",
        "rtplan_truncated.dcm",
        "UN_sequence.dcm",  # and these have no SOP Class or Instance UID
        "no_meta_group_length.dcm",
        "priv_SQ.dcm",
    }
    assert done.returncode == (1 if failed else 0)


@pytest.mark.parametrize("hostname", ["127.0.0.1", "localhost"])
def test_the_commands_serve_prints_work(hostname: str, home: Path) -> None:
    ct = str(pydicom.data.get_testdata_file("CT_small.dcm"))
    with Node(home) as node:
        credential = ["--credential", home / "pki"]
        assert cli("echo", hostname, str(node.port), *credential).returncode == 0
        assert cli("send", hostname, str(node.port), *credential, ct).returncode == 0
        assert len(node.kept()) == 1


def test_A6_a_bad_certificate_reaches_the_repository_by_name(
    home: Path, tmp_path: Path, repository: parts.Part
) -> None:
    stranger = Ca("Unknown CA").write(tmp_path / "stranger", "stranger")
    port = repository.port
    with Node(home, to_repository(port)) as node:
        context = ["+tls", str(stranger.key), str(stranger.crt), "+cf", str(home / "pki/ca.crt")]
        assert parts.run(["echoscu", *context, "127.0.0.1", str(node.port)]).returncode != 0
        parts.wait_until(
            lambda: any("unknown issuer" in one.words for one in arrived(tmp_path / "rsyslog")),
            "the alert in the repository",
        )
