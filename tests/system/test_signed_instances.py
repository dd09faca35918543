"""Digital signatures on the wire: a node that polices them, and one it sends on to.

The sentence issue by issue: signed instances of DCMTK's `dcmsign` and of ours come in by
`storescu`; tampered and unsigned ones are refused with an audit record that says why; what was
kept still verifies at a second node it is sent on to (PS3.15 A.3), and by `dcmsign` there.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pydicom
import pytest

from dicom_secure_node.archive import Archive
from dicom_secure_node.signatures.profiles import BASE, CREATOR
from dicom_secure_node.signatures.sign import Order
from tests import parts
from tests.signatures.signing_parts import CT, Site, tamper
from tests.system.running import ALERT, RESTRICTED_FUNCTION, TRANSFERRED, Node, cli

PATIENT = b"CompressedSamples^CT1"
FORGED = b"CompressedSamples^CT2"
SIGNER = "CN=device"


@pytest.fixture
def site(home: Path) -> Site:
    return Site(home / "signers")


@pytest.fixture
def signed(site: Site, tmp_path: Path) -> Path:
    """A CT image under a Creator RSA signature (C.2)."""
    path = tmp_path / "signed.dcm"
    site.sign(CT, path, Order(CREATOR))
    return path


def by_dcmsign(site: Site, tmp_path: Path) -> Path:
    path = tmp_path / "dcmsign.dcm"
    argv = ["dcmsign", "+s", site.leaf.key, site.leaf.crt, "+pc", "+m2", str(CT), str(path)]
    parts.run(argv, check=True)
    return path


def demanding(*wanted: str, refused: str = "reject", more: str = "") -> str:
    listed = ", ".join(f'"{one}"' for one in wanted)
    return f"""
[signatures]
on_store = [{listed}]
refused = "{refused}"
trust = "signers/device-ca.crt"
{more}
"""


def store(node: Node, path: Path) -> bool:
    """Send a file as it is with DCMTK's storescu; tell whether it was told Success."""
    argv = ["storescu", "-v", "-R", *node.credential(), "127.0.0.1", str(node.port), str(path)]
    done = parts.run(argv)
    return "Received Store Response (Success)" in done.stdout + done.stderr


def rows(node: Node, folder: str = "archive") -> list[dict[str, Any]]:
    """Return what the index says was found out, of each instance."""
    with Archive(node.home / folder) as archive:
        uids = [str(one) for one in archive.paths()]
        assert len(uids) == archive.counts().instances
        return [
            dict(entry.findings or {})
            for study in archive.studies()
            for entry in archive.find(_uid(archive, study.study))
        ]


def _uid(archive: Archive, study: str) -> str:
    (row,) = archive._index._query("SELECT sop_instance FROM instance WHERE study = ?", (study,))
    return str(row[0])


def test_require_creator_from_storescu_to_a_second_node(
    home: Path, site: Site, signed: Path, tmp_path: Path
) -> None:
    second_home = Path(shutil.copytree(home, tmp_path / "second"))
    rule = demanding("require-creator")
    with Node(home, rule) as node, Node(second_home, rule) as second:
        assert store(node, signed)
        assert not store(node, tamper(signed, PATIENT, FORGED))
        assert not store(node, CT)
        node.wait_for_alert("signed elements were changed", kind=RESTRICTED_FUNCTION)
        node.wait_for_alert("no digital signature", kind=RESTRICTED_FUNCTION)
        failed = [one.words for one in node.records(TRANSFERRED) if one.outcome]
        assert any("signed elements were changed" in words for words in failed), failed
        assert any("no digital signature" in words for words in failed), failed
        (kept,) = node.kept().values()

        words = ["--credential", node.home / "pki", "127.0.0.1", str(second.port), kept]
        done = cli("send", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert set(second.kept()) == set(node.kept())  # bit for bit
        (there,) = second.kept().values()
        assert site.verifier.verify_file(there).signatures[0].valid
        parts.run(["dcmsign", "--verify", "+cf", str(site.anchor), str(there)], check=True)


def test_what_dcmsign_signed_is_let_in_and_its_report_kept(
    home: Path, site: Site, tmp_path: Path
) -> None:
    with Node(home, demanding("require-creator")) as node:
        assert store(node, by_dcmsign(site, tmp_path))
        shown = cli("archive", "show", "--home", home, uid_of(CT), "--json")
    assert shown.returncode == 0, shown.stderr
    assert '"valid": true' in shown.stdout
    assert SIGNER in shown.stdout
    report = rows(node)[0]["signatures"]
    assert report["failures"] == []
    assert "creator" in report["signatures"][0]["profiles"]


def uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


REFUSED = {
    "unsigned, a signature required": ("require-signature", "unsigned", "no digital signature"),
    "tampered, though none is required": (
        "verify-if-present", "tampered", "signed elements were changed",
    ),
    "of a signer nobody trusts": ("verify-if-present", "stranger", "signer not trusted"),
    "signed, but not as C.2 wants it": ("require-creator", "base only", "is present and not"),
    "without certified timestamp": ("require-timestamp", "signed", "no certified timestamp"),
    "of an SR profile that is no SR": ("require-sr", "signed", "neither an SR document"),
}  # fmt: skip
TAKEN = {
    "unsigned, none required": ("verify-if-present", "unsigned"),
    "signed, none required": ("verify-if-present", "signed"),
    "signed, one required": ("require-signature", "base only"),
    "authorised by a creator signature's elements": ("require-authorization", "signed"),
}


def instance(kind: str, site: Site, signed: Path, tmp_path: Path) -> Path:
    if kind == "unsigned":
        return CT
    if kind == "signed":
        return signed
    if kind == "tampered":
        return tamper(signed, PATIENT, FORGED)
    path = tmp_path / "other.dcm"
    if kind == "stranger":
        Site(tmp_path / "elsewhere", "stranger").sign(CT, path, Order(CREATOR))
    else:
        site.sign(CT, path, Order(BASE, without=(0x7FE00010,)))
    return path


@pytest.mark.parametrize(("wanted", "kind", "why"), REFUSED.values(), ids=REFUSED)
def test_refused_with_its_own_reason(
    home: Path, site: Site, signed: Path, tmp_path: Path, wanted: str, kind: str, why: str
) -> None:
    with Node(home, demanding(wanted)) as node:
        assert not store(node, instance(kind, site, signed, tmp_path))
        node.wait_for_log("C-STORE refused", why)
        node.wait_for_alert("digital signatures:", why, kind=RESTRICTED_FUNCTION)
        assert node.kept() == {}
        assert node.incoming() == []


@pytest.mark.parametrize(("wanted", "kind"), TAKEN.values(), ids=TAKEN)
def test_taken(
    home: Path, site: Site, signed: Path, tmp_path: Path, wanted: str, kind: str
) -> None:
    with Node(home, demanding(wanted)) as node:
        assert store(node, instance(kind, site, signed, tmp_path))
        assert len(node.kept()) == 1


def test_quarantine_keeps_it_apart_and_says_so(home: Path, signed: Path) -> None:
    with Node(home, demanding("require-creator", refused="quarantine")) as node:
        assert store(node, signed)
        assert store(node, tamper(signed, PATIENT, FORGED))
        node.wait_for_alert("quarantined", "were changed", kind=RESTRICTED_FUNCTION)
        assert len(node.kept()) == 1
        apart = list((home / "archive/quarantine/instances").rglob("*.dcm"))
        assert len(apart) == 1
        assert node.incoming() == []
        shown = cli("archive", "show", "--home", home, "--quarantine", "--json", uid_of(signed))
        assert "signed elements were changed" in shown.stdout
        listed = cli("archive", "list", "--home", home, "--quarantine")
        assert len(listed.stdout.splitlines()) == 2
    assert rows(node, "archive/quarantine")[0]["signatures"]["failures"]


def test_what_is_marked_is_kept_with_its_report_and_audited(home: Path, signed: Path) -> None:
    with Node(home, demanding("verify-if-present", refused="mark")) as node:
        assert store(node, tamper(signed, PATIENT, FORGED))
        node.wait_for_alert("kept and marked", "were changed", kind=RESTRICTED_FUNCTION)
    (found,) = rows(node)
    assert found["signatures"]["failures"] == ["signature: signed elements were changed"]


def test_a_listener_that_observes_takes_everything_and_tells(home: Path, site: Site) -> None:
    change = {'mode = "enforce"': 'mode = "observe"'}
    with Node(home, demanding("require-creator"), change=change) as node:
        assert store(node, CT)
        node.wait_for_alert("observed only", "no digital signature", kind=RESTRICTED_FUNCTION)


def test_one_modality_has_to_sign_the_others_need_not(home: Path, signed: Path) -> None:
    rule = demanding("ignore", more='on_store_for = { CT1 = "require-creator" }')
    with Node(home, rule) as node:
        target = [*node.credential(), "127.0.0.1", str(node.port)]
        parts.run(["storescu", "-R", "-aet", "OTHER", *target, str(CT)], check=True)
        refused = parts.run(["storescu", "-v", "-R", "-aet", "CT1", *target, str(CT)])
        assert "Success" not in refused.stdout + refused.stderr
        node.wait_for_audit(lambda one: one.event == ALERT and "'CT1'" in one.words)


def test_trust_is_read_again_when_it_changes(home: Path, site: Site, signed: Path) -> None:
    stranger = Site(home / "strangers", "stranger")
    trusted = site.anchor.read_bytes()
    site.anchor.write_bytes(stranger.anchor.read_bytes())
    with Node(home, demanding("require-signature")) as node:
        assert not store(node, signed)
        replacement = site.anchor.with_suffix(".new")
        replacement.write_bytes(trusted)
        replacement.rename(site.anchor)
        assert store(node, signed)
