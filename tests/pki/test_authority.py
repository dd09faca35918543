"""The local authority: what it makes, openssl accepts; what it must not do, it refuses."""

from __future__ import annotations

import datetime
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from dicom_secure_node.errors import ConfigurationError, InvalidCertificate
from dicom_secure_node.pki.authority import LOCAL_HOSTS, LocalAuthority, local_hosts, utc_now
from dicom_secure_node.pki.building import general_names
from dicom_secure_node.pki.credential import load_credential, load_credential_base
from dicom_secure_node.pki.describe import usable_for
from dicom_secure_node.pki.files import write_file
from dicom_secure_node.pki.names import subject_alternatives
from dicom_secure_node.pki.trust import load_trust
from tests.pki.openssl import openssl, verify


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an authority without any leaf, made once: its key takes time."""
    folder = tmp_path_factory.mktemp("authority")
    LocalAuthority(folder).create("Lab 7")
    return folder


@pytest.fixture
def authority(fresh: Path, tmp_path: Path) -> LocalAuthority:
    """Return an authority of the test's own, without any leaf."""
    folder = tmp_path / "home" / "pki"
    shutil.copytree(fresh, folder)
    return LocalAuthority(folder)


def test_B13_equip_makes_an_rsa_and_an_ec_credential_that_openssl_accepts(tmp_path: Path) -> None:
    authority = LocalAuthority(tmp_path / "pki")
    assert authority.equip() == ("ca", "node", "node-ec", "client")
    folder = authority.folder
    assert load_credential_base(folder / "node").key_kind == "RSA"
    assert load_credential_base(folder / "node-ec").key_kind == "EC"
    crl = ("-crl_check", "-CRLfile", folder / "ca.crl", "-auth_level", "2")
    for name in ("node", "node-ec"):
        assert verify(folder / f"{name}.crt", folder / "ca.crt", *crl) == "OK"
    for name in ("node", "node-ec", "client"):
        path = folder / f"{name}.crt"
        assert verify(path, folder / "ca.crt", *crl, purpose="sslclient") == "OK"
    refused = verify(folder / "client.crt", folder / "ca.crt", *crl)
    assert refused == "unsuitable certificate purpose"
    assert authority.equip() == ()


def test_equip_makes_only_what_is_missing(authority: LocalAuthority) -> None:
    authority.issue("node", key="ec")
    before = (authority.folder / "node.crt").read_bytes()
    assert authority.equip() == ("node-ec", "client")
    assert (authority.folder / "node.crt").read_bytes() == before


def test_private_keys_are_0600_and_the_rest_0644_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o000, 0o077):
        folder = tmp_path / f"umask{umask}"
        old = os.umask(umask)
        try:
            authority = LocalAuthority(folder)
            authority.create()
            authority.issue("node", key="ec")
            authority.request("asked", key="ec")
        finally:
            os.umask(old)
        for path in folder.iterdir():
            wanted = 0o600 if path.suffix == ".key" else 0o644
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_a_key_is_never_written_through_a_link_and_no_draft_is_left(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    link = tmp_path / "node.key"
    link.symlink_to(target)
    write_file(link, b"secret", 0o600)
    assert target.read_bytes() == b"mine"
    assert not link.is_symlink()
    (tmp_path / "folder.key").mkdir()
    with pytest.raises(IsADirectoryError):
        write_file(tmp_path / "folder.key", b"secret", 0o600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.key", "node.key", "target"]


def test_names_and_subject_are_as_asked(authority: LocalAuthority) -> None:
    hosts = ("ct1.example.org", "192.0.2.7", "2001:db8::7", "ct1.example.org")
    leaf = authority.issue("ct1", key="ec", hosts=hosts, usage="client").certificate
    dns, addresses, _ = subject_alternatives(leaf)
    assert (dns, [str(a) for a in addresses]) == (hosts[:1], list(hosts[1:3]))
    assert leaf.subject.rfc4514_string() == "CN=ct1,O=Lab 7"
    assert usable_for(leaf) == ("client",)


def test_a_leaf_never_outlasts_its_authority(tmp_path: Path) -> None:
    authority = LocalAuthority(tmp_path)
    root = authority.create(days=30)
    leaf = authority.issue("node", key="ec").certificate
    assert leaf.not_valid_after_utc <= root.not_valid_after_utc


def test_an_expired_authority_issues_nothing(tmp_path: Path) -> None:
    LocalAuthority(tmp_path).create(days=30)
    late = LocalAuthority(tmp_path, lambda: utc_now() + datetime.timedelta(days=31))
    with pytest.raises(ConfigurationError, match=r"ca\.crt: expired"):
        late.issue("node", key="ec")


def test_revocation_reaches_openssl_and_the_trust_store(authority: LocalAuthority) -> None:
    folder = authority.folder
    for name in ("lost", "kept"):
        authority.issue(name, key="ec")
    assert authority.revoke("lost").revoked is not None
    authority.revoke("lost")  # again: nothing changes
    crl = ("-crl_check", "-CRLfile", folder / "ca.crl")
    assert verify(folder / "lost.crt", folder / "ca.crt", *crl) == "certificate revoked"
    assert verify(folder / "kept.crt", folder / "ca.crt", *crl) == "OK"
    store = load_trust([folder / "ca.crt"], [folder / "ca.crl"])
    assert [entry.serial_number for entry in store.crls[0]] == [
        load_credential_base(folder / "lost").certificate.serial_number
    ]
    assert store.crls[0].next_update_utc == store.anchors[0].not_valid_after_utc


def test_renewal_keeps_the_old_serial_in_the_register_and_off_the_list(
    authority: LocalAuthority,
) -> None:
    old = authority.issue("node", key="ec")
    with pytest.raises(ConfigurationError, match=r"node\.crt: exists already"):
        authority.issue("node", key="ec")
    new = authority.issue("node", key="ec", renew=True)
    assert [(one.serial, one.revoked) for one in authority.issued()] == [
        (old.certificate.serial_number, None),
        (new.certificate.serial_number, None),
    ]
    assert load_credential_base(authority.folder / "node").certificate == new.certificate
    # The replaced certificate can still be taken back, by itself.
    assert authority.revoke(old.certificate).serial == old.certificate.serial_number
    assert [one.revoked is None for one in authority.issued()] == [False, True]


def test_a_second_creation_changes_nothing(authority: LocalAuthority) -> None:
    before = {path: path.read_bytes() for path in authority.folder.iterdir()}
    with pytest.raises(ConfigurationError, match="exists already"):
        authority.create()
    assert {path: path.read_bytes() for path in authority.folder.iterdir()} == before


def test_two_authorities_differ_in_name(tmp_path: Path) -> None:
    subjects = {LocalAuthority(tmp_path / name).create().subject for name in ("a", "b")}
    assert len(subjects) == 2


HOSTILE_NAMES = (
    *("", ".", "..", ".hidden", "-rf", "ca", "CA", "Ca", "../node", "a/b", "/etc/passwd"),
    *("node\n", "node\0", "a b", "näme", "n" * 65, "node;id", "a\\b", "$HOME", "~root"),
)


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_could_leave_the_folder_is_refused(
    name: str, authority: LocalAuthority
) -> None:
    before = sorted(authority.folder.rglob("*"))
    for call in (authority.issue, authority.request, authority.revoke):
        with pytest.raises(ConfigurationError, match="found the name"):
            call(name)
    assert sorted(authority.folder.rglob("*")) == before


@given(name=st.text(max_size=70))
def test_no_name_at_all_leads_out_of_the_folder(name: str) -> None:
    authority = LocalAuthority(Path("/nonexistent/pki"))
    with pytest.raises(ConfigurationError) as caught:
        authority.issue(name)
    # An acceptable name gets as far as the missing folder.
    if "found the name" not in str(caught.value):
        assert Path(f"/x/{name}.crt").resolve().parent == Path("/x").resolve()


GOOD_HOSTS = ("localhost", "a.b-c.example", "vm_1", "127.0.0.1", "::1", "3com.example", "a" * 63)
BAD_HOSTS = ("", " ", "a b", "10.0.0.256", "1.2.3", "7", "*.example", "exämple", "a..b", "a.", "-a")


def test_hosts_are_names_or_addresses() -> None:
    assert len(list(general_names(GOOD_HOSTS))) == len(GOOD_HOSTS)
    for host in (*BAD_HOSTS, "a" * 64, "a\n", "a" * 300, "http://a", "a:104"):
        with pytest.raises(ConfigurationError, match="found the host"):
            general_names([host])
    with pytest.raises(ConfigurationError, match="at least one"):
        general_names([])


def test_this_machine_is_among_its_own_hosts() -> None:
    assert local_hosts()[:3] == LOCAL_HOSTS
    general_names(local_hosts())


@pytest.mark.parametrize("organisation", ["", "x" * 65, "two\nlines", "nul\0"])
def test_an_organisation_no_certificate_can_hold(organisation: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="found the organisation"):
        LocalAuthority(tmp_path).create(organisation)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", [0, -1, 36501])
def test_a_validity_out_of_range(days: int, authority: LocalAuthority) -> None:
    with pytest.raises(ConfigurationError, match="days of validity"):
        authority.issue("node", days=days)


def test_a_request_is_signed_by_another_authority(authority: LocalAuthority) -> None:
    elsewhere = LocalAuthority(authority.folder.parent / "elsewhere")
    request = elsewhere.request("node", hosts=("pacs.example",), organisation="Saint Example")
    assert request.is_signature_valid
    folder, other = elsewhere.folder, authority.folder
    assert sorted(path.name for path in folder.iterdir()) == ["node.csr", "node.key"]
    shown = openssl("req", "-in", folder / "node.csr", "-verify", "-noout", "-text")
    assert "DNS:pacs.example" in shown.stdout
    assert "O = Saint Example, CN = node" in shown.stdout
    signed = openssl(
        *("x509", "-req", "-in", folder / "node.csr", "-copy_extensions", "copyall"),
        *("-CA", other / "ca.crt", "-CAkey", other / "ca.key", "-days", "9"),
        *("-out", folder / "node.crt"),
    )
    assert signed.returncode == 0, signed.stderr
    assert load_credential_base(folder / "node").subject == "CN=node,O=Saint Example"
    assert verify(folder / "node.crt", other / "ca.crt") == "OK"


def test_a_key_that_waits_for_its_certificate_is_not_overwritten(
    authority: LocalAuthority,
) -> None:
    authority.request("node", key="ec")
    key = (authority.folder / "node.key").read_bytes()
    for call in (authority.issue, authority.request):
        with pytest.raises(ConfigurationError, match=r"node\.key: exists already"):
            call("node", key="ec")
    with pytest.raises(ConfigurationError, match="exists already"):
        authority.equip()
    assert (authority.folder / "node.key").read_bytes() == key


def test_another_authoritys_certificate_is_not_revoked(
    authority: LocalAuthority, tmp_path: Path
) -> None:
    other = LocalAuthority(tmp_path / "other")
    other.create()
    foreign = other.issue("node", key="ec").certificate
    with pytest.raises(ConfigurationError, match="not issued here"):
        authority.revoke(foreign)
    with pytest.raises(ConfigurationError, match=r"absent\.crt: no such file"):
        authority.revoke("absent")


def test_without_an_authority_nothing_is_issued(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no authority"):
        LocalAuthority(tmp_path).issue("node")
    with pytest.raises(ConfigurationError, match="no such file or directory"):
        LocalAuthority(tmp_path / "absent").issue("node")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="file"):
        LocalAuthority(tmp_path / "file" / "pki").create()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"issued": [{}]}', b'{"issued": 5}'])
def test_a_damaged_register_stops_the_authority(content: bytes, authority: LocalAuthority) -> None:
    register = authority.folder / "issued.json"
    register.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"issued\.json: found something else"):
        authority.issue("node", key="ec")
    assert register.read_bytes() == content
    assert not (authority.folder / "node.crt").exists()
    register.unlink()
    with pytest.raises(ConfigurationError, match="found no register"):
        authority.issue("node", key="ec")


def test_an_authority_without_its_key_says_so(authority: LocalAuthority) -> None:
    (authority.folder / "ca.key").write_bytes(b"")
    with pytest.raises(InvalidCertificate, match=r"ca\.key: found an empty file"):
        authority.issue("node", key="ec")


def test_processes_at_once_forget_no_certificate(authority: LocalAuthority) -> None:
    program = "import sys; from pathlib import Path; from dicom_secure_node.pki import authority\n"
    program += "authority.LocalAuthority(Path(sys.argv[1])).issue(sys.argv[2], key='ec')"
    root = Path(__file__).parents[2]
    running = [
        subprocess.Popen([sys.executable, "-c", program, authority.folder, f"leaf{n}"], cwd=root)
        for n in range(6)
    ]
    assert [process.wait(60) for process in running] == [0] * 6
    recorded = {one.serial for one in authority.issued()}
    written = {
        x509.load_pem_x509_certificate(path.read_bytes()).serial_number
        for path in authority.folder.glob("leaf*.crt")
    }
    assert len(written) == 6
    assert recorded == written


def test_a_full_disk_is_a_service_away_and_leaves_no_draft(authority: LocalAuthority) -> None:
    program = """
import resource, sys
from pathlib import Path
from dicom_secure_node.errors import ServiceUnavailable
from dicom_secure_node.pki.authority import LocalAuthority
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))  # bytes a file may grow to
try:
    LocalAuthority(Path(sys.argv[1])).issue("node", key="ec")
except ServiceUnavailable as error:
    sys.exit(f"{error.service}: {error.reason}")
"""
    before = {path: path.read_bytes() for path in authority.folder.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", program, authority.folder],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr[:5]) == (1, "disk:"), done.stderr
    assert {path: path.read_bytes() for path in authority.folder.iterdir()} == before


def test_the_authoritys_own_pair_loads(authority: LocalAuthority) -> None:
    pair = load_credential(authority.folder / "ca.crt", authority.folder / "ca.key")
    assert pair.certificate.public_key().key_size == 3072  # type: ignore[union-attr]
