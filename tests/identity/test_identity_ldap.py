"""User name and passcode against a directory (PS3.15 B.5): slapd over StartTLS and LDAPS."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dicom_secure_node.archive import Archive
from dicom_secure_node.errors import (
    ConfigurationError,
    IdentityRefused,
    LimitReached,
    ServiceUnavailable,
)
from dicom_secure_node.identity.claims import Claim, Identity, IdentityType, PeerFacts
from dicom_secure_node.identity.ldap_connection import LdapConnection
from dicom_secure_node.identity.ldap_directory import LdapBackend
from dicom_secure_node.identity.ldap_settings import LdapSettings
from dicom_secure_node.identity.lockout import LockingBackend, Lockout
from dicom_secure_node.identity.policy import Demand, IdentityPolicy
from dicom_secure_node.node.plugins.identity import IdentityPlugin
from dicom_secure_node.node.plugins.storage import StoragePlugin
from dicom_secure_node.node.server import Listener
from dicom_secure_node.pki.credential import load_credential
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.tls.context import ServerContext
from dicom_secure_node.tls.profiles import profile_named
from tests.certs import Ca, Leaf
from tests.identity.directory import (
    BASE,
    SERVICE_DN,
    SERVICE_PASSCODE,
    Directory,
    Relay,
    group,
    person,
)
from tests.loopback import CT_SMALL, Recorder, port_of, serving
from tests.parts import Part, free_port, run, wait_until

PASSCODE = "planted-passcode"
PEER = PeerFacts(address="10.1.2.3", calling_ae="CT1", protected=True)
ODD = 'a*(b)\\c, d="e"+f#'  # every character that means something in a filter or a DN
ADA = "cn=ada,ou=people,dc=test"

PEOPLE = "".join(
    (
        person("ada", PASSCODE)
        + "memberOf: cn=Radiology,ou=groups,dc=test\nmemberOf: CN=night shift , OU=Groups,DC=Test\n"
        + "memberOf: cn=admins,ou=elsewhere,dc=test\n",
        person("grace", "planted-other"),
        person("Müller", "Pässwort 秘密"),
        person(ODD, PASSCODE),
        person("twin", PASSCODE) + person("twin", PASSCODE, ou="elsewhere"),
        person("both", PASSCODE, uids=("both", "deux")),
        person("nameless", PASSCODE, uids=()),
        person("line", PASSCODE, uids=("li\u202ene",)),
        person("bare"),
        *(
            person(name, PASSCODE) + f"pwdPolicySubentry: cn=policy,dc=test\n{state}\n"
            for name, state in {
                "reset": "pwdReset: TRUE",
                "expired": "pwdChangedTime: 20200101000000Z",
                "locked": "pwdAccountLockedTime: 000001010000Z",
            }.items()
        ),
        group("Radiology", ADA),
        group("Admins", "cn=grace,ou=people,dc=test", ADA, ou="elsewhere"),
    )
)


@dataclass(frozen=True)
class Site:
    """A running directory, and how to reach it."""

    folder: Path
    ca: Ca
    directory: Directory
    settings: LdapSettings

    def backend(self, each: int = 200, **changes: Any) -> LdapBackend:
        return LdapBackend(replace(self.settings, **changes), each=each)


def settled(folder: Path, anchor: Path, *urls: str) -> LdapSettings:
    """Return settings for `urls`; the service account's passcode lies in `folder`."""
    secret = folder / "service.txt"
    secret.write_text(SERVICE_PASSCODE + "\n")
    return LdapSettings(
        urls, BASE, trust=(anchor,), bind_dn=SERVICE_DN, bind_passcode_file=secret, timeout=10.0,
        seconds=60.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("directory")
    ca = Ca()
    anchor = ca.anchor(folder / "ca.crt")
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        refer = f"ldap://127.0.0.1:{elsewhere.getsockname()[1]}"
        with Directory(
            folder / "slapd", anchor, ca.write(folder, "server"), PEOPLE, referral=refer,
            verify_client="try",
        ) as directory:  # fmt: skip
            yield Site(folder, ca, directory, settled(folder, anchor, directory.url))
        elsewhere.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody followed the referral in BASE
            elsewhere.accept()


def claim(user: str, passcode: str | bytes = PASSCODE) -> Claim:
    secret = passcode.encode() if isinstance(passcode, str) else passcode
    return Claim(IdentityType.PASSCODE, user.encode(), secret)


def outcome(backend: LdapBackend | LockingBackend, user: str, passcode: str | bytes) -> str:
    try:
        return backend.verify(claim(user, passcode), PEER).user
    except IdentityRefused as exc:
        return exc.reason


TAKEN = {
    "as it is": ("ada", PASSCODE, "ada", ADA),
    "in capitals: the directory's spelling counts": ("ADA", PASSCODE, "ada", ADA),
    "with blanks around": (" ada  ", PASSCODE, "ada", ADA),
    "not ASCII": ("Müller", "Pässwort 秘密", "Müller", "cn=M\\C3\\BCller,ou=people,dc=test"),
    "another's passcode is another's": ("grace", "planted-other", "grace", ""),
    "characters of filters and DNs": (ODD, PASSCODE, ODD, ""),
}


@pytest.mark.parametrize("secure", [False, True], ids=["StartTLS", "LDAPS"])
@pytest.mark.parametrize("case", TAKEN.values(), ids=TAKEN)
def test_B5_right_passcode(site: Site, case: tuple[str, ...], secure: bool) -> None:
    user, passcode, wanted, dn = case
    url = site.directory.secure_url if secure else site.directory.url
    identity = site.backend(urls=(url,)).verify(claim(user, passcode), PEER)
    assert (identity.user, identity.proven, identity.response) == (wanted, True, b"")
    assert not dn or identity.attributes["dn"] in (dn, dn.replace("\\C3\\BC", "ü"))
    assert identity.how == "directory (B.5)"


REFUSED = {
    "wrong passcode": ("ada", "wrong", "user 'ada': wrong passcode"),
    "case of the passcode": ("ada", PASSCODE.upper(), "user 'ada': wrong passcode"),
    "passcode of another": ("ada", "planted-other", "user 'ada': wrong passcode"),
    "passcode that is not UTF-8": ("ada", b"\xff\xfe", "user 'ada': wrong passcode"),
    "unknown user": ("eve", PASSCODE, "user 'eve': unknown user"),
    "two entries": ("twin", PASSCODE, "user 'twin': more than one entry in the directory"),
    "two names in the entry": (
        "both", PASSCODE, "user 'both': the entry has 2 values of uid, wanted one",
    ),
    "entry without a passcode": ("bare", PASSCODE, "user 'bare': wrong passcode"),
    "a name that would forge log lines": (
        "li\u202ene", PASSCODE, "user name holds a control character",
    ),
    "locked in the directory": (
        "locked", PASSCODE, "user 'locked': the directory has locked the account",
    ),
    "passcode expired": ("expired", PASSCODE, "user 'expired': the passcode has expired"),
    "passcode to be changed": (
        "reset", PASSCODE, "user 'reset': the passcode has to be changed first",
    ),
    "any name": ("*", PASSCODE, "user '*': unknown user"),
    "a pattern": ("a*", PASSCODE, "user 'a*': unknown user"),
    "a filter": ("ada)(uid=*", PASSCODE, "user 'ada)(uid=*': unknown user"),
    "a filter, opened": ("*)(|(uid=ada", PASSCODE, "user '*)(|(uid=ada': unknown user"),
    "an escape": ("\\61da", PASSCODE, "user '\\\\61da': unknown user"),
    "a DN": (ADA, PASSCODE, f"user '{ADA}': unknown user"),
    "the service account": ("node", SERVICE_PASSCODE, "user 'node': unknown user"),
    "no user": ("", PASSCODE, "user name is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_B5_refused(site: Site, case: tuple[str, str | bytes, str]) -> None:
    user, passcode, reason = case
    with pytest.raises(IdentityRefused) as refused:
        site.backend().verify(claim(user, passcode), PEER)
    assert refused.value.reason == reason
    assert (refused.value.result, refused.value.source, refused.value.diagnostic) == (1, 2, 1)


def test_an_entry_found_by_another_attribute_needs_the_user_s(site: Site) -> None:
    backend = site.backend(filter="(|(uid={user})(cn={user}))")
    assert outcome(backend, "nameless", PASSCODE) == (
        "user 'nameless': the entry has 0 values of uid, wanted one"
    )
    assert outcome(backend, "line", PASSCODE) == "user name holds a control character"


UNASKED = {
    "empty": (b"", "user 'ada': the passcode is empty"),
    "NUL": (PASSCODE.encode() + b"\0x", "user 'ada': the passcode holds a NUL"),
    "endless": (b"x" * 1025, "user 'ada': the passcode is too long"),
}


@pytest.mark.parametrize("case", UNASKED.values(), ids=UNASKED)
def test_RFC4513_what_no_directory_should_be_asked(site: Site, case: tuple[bytes, str]) -> None:
    with Relay(site.directory.port) as relay:
        backend = site.backend(urls=(f"ldap://127.0.0.1:{relay.port}",))
        assert outcome(backend, "ada", case[0]) == case[1]
        assert relay.connections == 0


def operations(log: str) -> list[str]:
    """Return what slapd did, in order, without the numbers of connections."""
    found = re.findall(r"conn=\d+ op=\d+ (STARTTLS|BIND dn=\S+ method|SRCH base|UNBIND)", log)
    return [str(line).partition("=")[0] for line in found]


@pytest.mark.parametrize(
    ("user", "passcode"), [("ada", "wrong"), ("eve", "wrong"), ("twin", PASSCODE)]
)
def test_unknown_users_cost_a_bind_too(site: Site, user: str, passcode: str) -> None:
    before = len(site.directory.output)
    outcome(site.backend(), user, passcode)
    wanted = ["STARTTLS", "BIND dn", "SRCH base", "BIND dn", "UNBIND"]
    wait_until(lambda: len(operations(site.directory.output[before:])) >= 5, "five operations")
    assert operations(site.directory.output[before:]) == wanted


# --- groups --------------------------------------------------------------------------------------

GROUPS: dict[str, tuple[dict[str, str], set[str]]] = {
    "of the entry, below base": ({}, {"Radiology", "night shift", "admins"}),
    "of the entry, below a base of their own": (
        {"groups_base": "ou=Groups, dc=test"}, {"Radiology", "night shift"},
    ),
    "none wanted": ({"groups_attribute": ""}, set()),
    "searched": ({"groups_filter": "(member={dn})"}, {"Radiology", "Admins"}),
    "searched, below a base of their own": (
        {"groups_filter": "(&(objectClass=groupOfNames)(member={dn}))",
         "groups_base": "ou=groups,dc=test"}, {"Radiology"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GROUPS.values(), ids=GROUPS)
def test_groups(site: Site, case: tuple[dict[str, str], set[str]]) -> None:
    changes, groups = case
    assert site.backend(**changes).verify(claim("ada"), PEER).groups == groups


def test_groups_of_nobody_else(site: Site) -> None:
    backend = site.backend(groups_filter="(member={dn})", groups_base="ou=groups,dc=test")
    assert backend.verify(claim("grace", "planted-other"), PEER).groups == set()
    assert backend.verify(claim(ODD), PEER).groups == set()


def test_more_groups_than_can_be_looked_at_refuse(site: Site, tmp_path: Path) -> None:
    """A rule that denies a group must not miss it because a list was cut."""
    many = person("ada", PASSCODE) + "".join(
        f"memberOf: cn=g{number},ou=groups,dc=test\n" for number in range(1001)
    )
    server = site.ca.write(tmp_path, "server")
    anchor = site.ca.anchor(tmp_path / "ca.crt")
    with Directory(tmp_path / "slapd", anchor, server, many) as directory:
        backend = LdapBackend(settled(tmp_path, anchor, directory.url))
        assert outcome(backend, "ada", PASSCODE) == "user 'ada': in more than 1000 groups"


# --- whose login it is ---------------------------------------------------------------------------


def test_a_login_of_one_never_serves_another(site: Site) -> None:
    """Many at once, right and wrong in turn; each one gets its own answer."""
    backend = site.backend(workers=4, queue=200)
    cases = [
        ("ada", PASSCODE, "ada"),
        ("grace", PASSCODE, "user 'grace': wrong passcode"),
        ("grace", "planted-other", "grace"),
        ("ada", "planted-other", "user 'ada': wrong passcode"),
        ("eve", PASSCODE, "user 'eve': unknown user"),
    ] * 12
    answers: list[str] = [""] * len(cases)

    def login(number: int) -> None:
        answers[number] = outcome(backend, *cases[number][:2])

    threads = [threading.Thread(target=login, args=(number,)) for number in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [wanted for *_, wanted in cases]


def test_every_login_has_a_connection_of_its_own_and_leaves_nothing_open(site: Site) -> None:
    backend = site.backend()
    outcome(backend, "ada", PASSCODE)
    before = len(site.directory.output)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for passcode in (PASSCODE, "wrong", PASSCODE):
        outcome(backend, "ada", passcode)
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert [t.name for t in threading.enumerate() if t.name == "directory"] == []

    def binds() -> list[str]:
        found = re.findall(
            rf'(conn=\d+) op=\d+ BIND dn="{ADA}" meth', site.directory.output[before:]
        )
        return found

    wait_until(lambda: len(binds()) == 3, "three binds")
    assert len(set(binds())) == 3


# --- servers -------------------------------------------------------------------------------------


def test_the_next_server_is_asked_when_one_is_away(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    dead = f"ldap://127.0.0.1:{free_port()}"
    backend = site.backend(urls=(dead, site.directory.secure_url, site.directory.url))
    assert outcome(backend, "ada", PASSCODE) == "ada"
    assert outcome(backend, "ada", "wrong") == "user 'ada': wrong passcode", "a no is an answer"
    assert [record.getMessage() for record in caplog.records] == [
        f"directory {dead}: Connection refused"
    ], "the dead one is asked last now"


def test_a_server_that_hangs_is_asked_last_for_a_while(site: Site) -> None:
    with Relay() as silent:
        urls = (f"ldap://127.0.0.1:{silent.port}", site.directory.url)
        backend = site.backend(urls=urls, timeout=0.5)
        for _ in range(3):
            assert outcome(backend, "ada", PASSCODE) == "ada"
        assert silent.connections == 1


def test_D3371_when_all_are_away_nothing_was_decided(site: Site) -> None:
    one, other = (f"ldap://127.0.0.1:{free_port()}" for _ in "ab")
    backend = site.backend(urls=(one, other))
    with pytest.raises(ServiceUnavailable) as away:
        backend.verify(claim("ada"), PEER)
    assert str(away.value) == (
        f"directory: {one}: Connection refused; {other}: Connection refused"
    )  # fmt: skip


@pytest.mark.parametrize("secure", [False, True], ids=["StartTLS", "LDAPS"])
@pytest.mark.parametrize("limit", [0, 1, 5, 14, 16, 60, 900, 1400, 1500, 2600, 2800])
def test_a_server_that_falls_silent_anywhere_is_away(site: Site, limit: int, secure: bool) -> None:
    """In the answer to StartTLS, in the handshake, in a record of TLS: libldap waits for ever."""
    scheme, target = "ldap", site.directory.port
    if secure:
        scheme, target = "ldaps", int(site.directory.secure_url.rpartition(":")[2])
    with Relay(target, limit) as relay:
        backend = site.backend(urls=(f"{scheme}://127.0.0.1:{relay.port}",), timeout=0.4)
        try:
            backend.verify(claim("ada"), PEER)
        except ServiceUnavailable:
            return
        assert limit > 1400, "so much of the answers is enough"


def test_a_lost_connection_is_not_made_again_in_clear(site: Site) -> None:
    with Relay(site.directory.port) as relay:
        url = f"ldap://127.0.0.1:{relay.port}"
        connection = LdapConnection(site.settings, url, time.monotonic() + 60)
        connection.bind_as_service()
        assert len(connection.find_user("ada")) == 1
        relay.hangs_up = True
        with connection:
            with pytest.raises(ServiceUnavailable, match="Can't contact LDAP server"):
                connection.find_user("ada")
            with pytest.raises(ServiceUnavailable, match="Can't contact LDAP server"):
                connection.bind_as(ADA, PASSCODE.encode())


SERVICE_AWAY = {
    "passcode": {"bind_dn": "cn=other,dc=test"},
    "nobody may search": {"bind_dn": "", "bind_passcode_file": None},
    "no such base": {"base": "ou=nowhere,dc=test"},
}


@pytest.mark.parametrize("changes", SERVICE_AWAY.values(), ids=SERVICE_AWAY)
def test_a_service_account_that_cannot_search_decides_nothing(
    site: Site, changes: dict[str, Any]
) -> None:
    with pytest.raises(ServiceUnavailable) as away:
        site.backend(**changes).verify(claim("ada"), PEER)
    assert "planted" not in str(away.value)


def test_the_passcode_file_of_the_service_account_is_read_each_time(
    site: Site, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of yesterday\n")
    backend = site.backend(bind_passcode_file=secret)
    with pytest.raises(ServiceUnavailable, match="service account: Invalid credentials"):
        backend.verify(claim("ada"), PEER)
    secret.write_text(SERVICE_PASSCODE + "\n")
    backend = site.backend(bind_passcode_file=secret)
    assert outcome(backend, "ada", PASSCODE) == "ada"
    secret.unlink()
    with pytest.raises(ServiceUnavailable, match="cannot read: No such file"):
        backend.verify(claim("ada"), PEER)


def test_the_service_account_may_be_our_certificate_s(site: Site, tmp_path: Path) -> None:
    client = site.ca.write(tmp_path, "client", usage="client")
    backend = site.backend(bind_dn="", bind_passcode_file=None, credential=client.base)
    for url in (site.directory.url, site.directory.secure_url):
        backend = site.backend(
            urls=(url,), bind_dn="", bind_passcode_file=None, credential=client.base
        )
        assert outcome(backend, "ada", PASSCODE) == "ada"
        assert outcome(backend, "ada", "wrong") == "user 'ada': wrong passcode"


def test_too_many_at_a_time_is_temporary_congestion(site: Site) -> None:
    with Relay() as silent:
        backend = site.backend(
            urls=(f"ldap://127.0.0.1:{silent.port}",), workers=1, queue=1, timeout=5.0
        )
        answers: list[str] = []

        def login() -> None:
            try:
                backend.verify(claim("ada"), PEER)
            except (LimitReached, ServiceUnavailable) as exc:
                answers.append(type(exc).__name__)

        threads = [threading.Thread(target=login) for _ in range(6)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answers) >= 4, "four refusals")
        assert answers == ["LimitReached"] * 4
    for thread in threads:
        thread.join(60)
    assert answers[4:] == ["ServiceUnavailable"] * 2


def test_one_address_does_not_take_all_places(site: Site) -> None:
    backend = site.backend(each=1)
    with backend._turn(PEER.address, float("inf")):
        with pytest.raises(LimitReached, match="too many passcodes"):
            backend.verify(claim("ada"), PEER)
        assert backend.verify(claim("ada"), replace(PEER, address="10.1.2.4")).user == "ada"
    assert outcome(backend, "ada", PASSCODE) == "ada"


def test_waiting_for_a_turn_has_an_end(site: Site) -> None:
    backend = site.backend(workers=1, seconds=0.2)
    with backend._turns:
        for _ in range(3):
            with pytest.raises(LimitReached, match="took too long") as congested:
                backend.verify(claim("ada"), PEER)
    assert (congested.value.result, congested.value.source, congested.value.diagnostic) == (2, 3, 1)
    assert outcome(site.backend(), "ada", PASSCODE) == "ada"


# --- TLS -----------------------------------------------------------------------------------------


def other_ca(ca: Ca, folder: Path) -> tuple[Leaf, dict[str, Any]]:
    return Ca("Another CA").write(folder, "server"), {}


def wrong_name(ca: Ca, folder: Path) -> tuple[Leaf, dict[str, Any]]:
    # localhost and this machine's own name are what libldap would have let pass.
    hosts = ("localhost", socket.gethostname(), "192.0.2.1")
    return ca.write(folder, "server", hosts=hosts), {}


def name_in_cn_only(ca: Ca, folder: Path) -> tuple[Leaf, dict[str, Any]]:
    return ca.write(folder, "127.0.0.1", hosts=()), {}


def expired(ca: Ca, folder: Path) -> tuple[Leaf, dict[str, Any]]:
    return ca.write(folder, "server", expired=True), {}


def wrong_usage(ca: Ca, folder: Path) -> tuple[Leaf, dict[str, Any]]:
    return ca.write(folder, "server", usage="client"), {}


def revoked(ca: Ca, folder: Path) -> tuple[Leaf, dict[str, Any]]:
    leaf = ca.write(folder, "server")
    return leaf, {"crl": (ca.crl(folder / "ca.crl", [leaf]),)}


def crl_expired(ca: Ca, folder: Path) -> tuple[Leaf, dict[str, Any]]:
    return ca.write(folder, "server"), {"crl": (ca.crl(folder / "ca.crl", expired=True),)}


DISTRUSTED = {
    other_ca: "unable to get local issuer certificate",
    wrong_name: "IP address mismatch",
    name_in_cn_only: "IP address mismatch",
    expired: "certificate has expired",
    wrong_usage: "unsuitable certificate purpose",
    revoked: "certificate revoked",
    crl_expired: "CRL has expired",
}


@pytest.mark.parametrize("secure", [False, True], ids=["StartTLS", "LDAPS"])
@pytest.mark.parametrize("make", DISTRUSTED, ids=lambda make: make.__name__)
def test_a_directory_that_is_not_to_be_trusted_hears_no_passcode(
    make: Any, secure: bool, tmp_path: Path
) -> None:
    ca = Ca()
    anchor = ca.anchor(tmp_path / "ca.crt")
    leaf, changes = make(ca, tmp_path / "server")
    with Directory(tmp_path / "slapd", anchor, leaf, PEOPLE) as directory:
        url = directory.secure_url if secure else directory.url
        backend = LdapBackend(replace(settled(tmp_path, anchor, url), **changes))
        with pytest.raises(ServiceUnavailable, match=f"TLS: .*{DISTRUSTED[make]}"):
            backend.verify(claim("ada"), PEER)
        assert "BIND" not in directory.output


def test_a_good_certificate_with_a_revocation_list(tmp_path: Path) -> None:
    ca = Ca()
    anchor, crl = ca.anchor(tmp_path / "ca.crt"), ca.crl(tmp_path / "ca.crl")
    with Directory(tmp_path / "slapd", anchor, ca.write(tmp_path, "s"), PEOPLE) as directory:
        settings = replace(settled(tmp_path, anchor, directory.url), crl=(crl,))
        assert outcome(LdapBackend(settings), "ada", PASSCODE) == "ada"


def test_the_environment_decides_nothing(tmp_path: Path) -> None:
    """libldap reads ldap.conf and LDAPTLS_*: switched off there, names and issuers still count."""
    leaf, ours = Ca("Another CA").write(tmp_path, "server"), Ca().anchor(tmp_path / "ca.crt")
    with Directory(tmp_path / "slapd", ours, leaf, PEOPLE) as directory:
        settled(tmp_path, ours, directory.url)
        code = (
            "from pathlib import Path; from tests.identity.test_identity_ldap import *\n"
            f"folder = Path({str(tmp_path)!r})\n"
            f"s = settled(folder, folder / 'ca.crt', {directory.url!r})\n"
            "LdapBackend(s).verify(claim('ada'), PEER)"
        )
        env = {"LDAPTLS_REQCERT": "never", "LDAPTLS_CACERT": str(leaf.crt), "LDAPURI": "ldap://x"}
        done = run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], env=env)
        assert "ServiceUnavailable: directory: " in done.stderr
        assert "unable to get local issuer certificate" in done.stderr
        assert "BIND" not in directory.output


def test_BCP195_no_TLS_before_1_2(site: Site, tmp_path: Path) -> None:
    server = site.ca.write(tmp_path, "server")
    port = free_port()
    argv = ["openssl", "s_server", "-accept", str(port), "-cert", server.crt, "-key", server.key]
    argv += ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-quiet"]
    with Part(argv, log=tmp_path / "log", port=port) as old:
        with pytest.raises(ServiceUnavailable, match=r"TLS: .*PROTOCOL"):
            site.backend(urls=(f"ldaps://127.0.0.1:{port}",)).verify(claim("ada"), PEER)
        wait_until(lambda: "unsupported protocol" in old.output, "a refusal at the server")


NO_START_TLS = {
    "refuses": (bytes.fromhex("300c02010178070a010204000400"), r"refuses StartTLS \(result 2\)"),
    "says nothing of it": (bytes.fromhex("300c02010161070a010004000400"), "does not speak LDAP"),
    "is no directory": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "closed the connection"),
    "endless": (b"\x30\x84\x7f\xff\xff\xff", "does not speak LDAP"),
    "endless length": (b"\x30\xff" + b"\xff" * 127, "does not speak LDAP"),
    "closes": (b"", "closed the connection"),
    "goes on in clear": (
        bytes.fromhex("300c02010178070a010004000400300c02010161070a010004000400"),
        "TLS: ",
    ),
}


@pytest.mark.parametrize("case", NO_START_TLS.values(), ids=NO_START_TLS)
def test_RFC4511_without_StartTLS_nothing_is_said(site: Site, case: tuple[bytes, str]) -> None:
    answer, reason = case
    heard = bytearray()

    def serve(server: socket.socket) -> None:
        client, _ = server.accept()
        with client:
            heard.extend(client.recv(31))
            client.sendall(answer)
            with suppress(OSError):
                client.shutdown(socket.SHUT_WR)
                while data := client.recv(65536):
                    heard.extend(data)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        backend = site.backend(urls=(f"ldap://127.0.0.1:{server.getsockname()[1]}",))
        with pytest.raises(ServiceUnavailable, match=reason):
            backend.verify(claim("ada"), PEER)
        thread.join(60)
    assert b"planted" not in heard


# --- configuration -------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "in clear": ({"start_tls": False}, "passcodes do not travel in clear"),
    "no server": ({"urls": ()}, "wanted at least one directory server"),
    "another scheme": ({"urls": ("ldapi://%2Frun",)}, "wanted ldaps://HOST"),
    "URL with a search": ({"urls": ("ldaps://h/dc=x??sub",)}, "wanted ldaps://HOST"),
    "URL with a passcode": ({"urls": ("ldaps://u:p@h",)}, "wanted ldaps://HOST"),
    "URL with a port that is none": ({"urls": ("ldaps://h:99999",)}, "wanted ldaps://HOST"),
    "no base": ({"base": ""}, "base is empty"),
    "base": ({"base": "no DN"}, "in base, wanted a DN"),
    "filter without user": ({"filter": "(uid=ada)"}, r"wanted an LDAP filter with \{user\}"),
    "filter that is the user's": ({"filter": "({user})"}, r"wanted an LDAP filter with \{user\}"),
    "filter without an end": ({"filter": "(uid={user}"}, "wanted an LDAP filter"),
    "group filter": ({"groups_filter": "(cn={user})"}, r"with \{dn\}"),
    "scope": ({"scope": "all"}, "'all', wanted 'subtree' or 'one'"),
    "attribute": ({"user_attribute": "uid;x"}, "in user_attribute"),
    "no attribute": ({"user_attribute": ""}, "in user_attribute"),
    "account without a passcode": (
        {"bind_passcode_file": None},
        "one of bind_dn and bind_passcode_file",
    ),
    "passcode without an account": ({"bind_dn": ""}, "one of bind_dn and bind_passcode_file"),
    "passcode file": ({"bind_passcode_file": Path("/nowhere")}, "cannot read"),
    "no trust": ({"trust": ()}, "no trust anchor"),
    "trust": ({"trust": (Path("/nowhere"),)}, "no such file"),
    "workers": ({"workers": 0}, "out of range"),
    "queue": ({"queue": -1}, "out of range"),
    "seconds": ({"seconds": 0.0}, "wanted more than 0"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_configuration_is_checked(site: Site, case: tuple[dict[str, Any], str]) -> None:
    with pytest.raises(ConfigurationError, match=case[1]):
        site.backend(**case[0])


def test_DER_is_not_taken(site: Site, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    der = tmp_path / "ca.der"
    der.write_bytes(site.ca.certificate.public_bytes(Encoding.DER))
    with pytest.raises(ConfigurationError, match="found DER, wanted PEM"):
        site.backend(trust=(der,))


def test_without_python_ldap_the_extra_is_named(site: Site) -> None:
    code = (
        "import sys; sys.modules['ldap'] = None\n"
        "from dicom_secure_node.identity.ldap_directory import LdapBackend\n"
        "LdapBackend(None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "dicom-secure-node[ldap]"' in done.stderr


# --- end to end ----------------------------------------------------------------------------------


def test_B5_storescu_logs_in_against_the_directory(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """DCMTK over TLS, our node, slapd over StartTLS; then guesses, until the lock."""
    caplog.set_level(0)
    node, client = site.ca.write(tmp_path, "node"), site.ca.write(tmp_path, "scu")
    context = ServerContext(
        profile_named("8996"),
        [load_credential(node.crt, node.key)],
        load_trust(site.settings.trust),
    )
    alerts: list[tuple[str, str]] = []
    backend = LockingBackend(
        site.backend(), Lockout(failures=2), lambda user, address: alerts.append((user, address))
    )
    recorder = Recorder()
    archive = Archive(tmp_path / "archive")
    storage = StoragePlugin(archive)
    policy = IdentityPolicy(Demand.of("required", backend.kinds))
    plugins = [IdentityPlugin({"tls": policy}, [backend]), storage, recorder]
    tls = ["+tls", client.key, client.crt, "+cf", site.settings.trust[0], "-rc"]
    listener = Listener("tls", lambda: context)
    with closing(archive), serving(plugins, receive=storage.receive, listener=listener) as server:
        peer = ["127.0.0.1", str(port_of(server)), CT_SMALL]
        store = ["storescu", "-v", *tls, "-rsp", "-usr"]
        done = run([*store, "ADA", "-pwd", PASSCODE, *peer])
        assert done.returncode == 0, done.stdout + done.stderr
        (association,) = recorder.wait_for("on_association_accepted")
        assert association.identity.user == "ada"
        assert "Radiology" in association.identity.groups
        assert len(list((tmp_path / "archive").rglob("*.dcm"))) == 1
        for passcode in ("planted-guess", "planted-guess", PASSCODE):
            done = run([*store, "ada", "-pwd", passcode, *peer])
            assert "Rejected Permanent" in done.stdout + done.stderr
        assert alerts == [("ada", "127.0.0.1")]
    assert "locked after 2 failures" in caplog.text
    assert "planted" not in caplog.text


def test_no_secret_in_any_text(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    texts = [repr(site.settings), repr(site.backend()), repr(claim("ada"))]
    backends = [
        site.backend(),
        site.backend(bind_dn="cn=other,dc=test"),
        site.backend(urls=(f"ldap://127.0.0.1:{free_port()}",)),
        site.backend(base="ou=nowhere,dc=test"),
    ]
    for backend in backends:
        for user in ("ada", "eve", "twin", "locked"):
            for passcode in (PASSCODE, "planted-wrong", "planted\0"):
                try:
                    found: Identity | Exception = backend.verify(claim(user, passcode), PEER)
                except (IdentityRefused, ServiceUnavailable) as exc:
                    found = exc
                    while exc.__cause__ is not None:
                        texts.append(f"{exc.__cause__!r}")
                        exc = exc.__cause__  # type: ignore[assignment]
                texts += [repr(found), str(found)]
    assert "planted" not in "\n".join(texts) + caplog.text
