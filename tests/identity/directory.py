"""A directory for the tests: OpenLDAP's slapd on loopback, with people, groups and traps.

It answers only over TLS (``olcSecurity: ssf=128``), keeps passcodes where nobody can read them, and
lets nobody but the service account search: whoever searches as the user, or in clear, fails.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from ldap.dn import escape_dn_chars

from tests.certs import Leaf
from tests.parts import Part, free_port, listening, run

BASE = "dc=test"
SERVICE_DN = "cn=node,dc=test"
SERVICE_PASSCODE = "planted-service-passcode"

_SLAPD = Path("/usr/sbin/slapd")
_SLAPADD = Path("/usr/sbin/slapadd")

_CONFIGURATION = """\
dn: cn=config
objectClass: olcGlobal
cn: config
olcPidFile: {folder}/pid
olcTLSCACertificateFile: {anchor}
olcTLSCertificateFile: {crt}
olcTLSCertificateKeyFile: {key}
olcTLSVerifyClient: {verify_client}
olcSecurity: ssf=128
olcAuthzRegexp: "cn=client,o=test hospital" "cn=node,dc=test"

dn: cn=module,cn=config
objectClass: olcModuleList
cn: module
olcModulePath: /usr/lib/ldap
olcModuleLoad: back_mdb
olcModuleLoad: memberof
olcModuleLoad: ppolicy

dn: cn=schema,cn=config
objectClass: olcSchemaConfig
cn: schema

include: file:///etc/ldap/schema/core.ldif
include: file:///etc/ldap/schema/cosine.ldif
include: file:///etc/ldap/schema/inetorgperson.ldif

dn: olcDatabase=mdb,cn=config
objectClass: olcDatabaseConfig
objectClass: olcMdbConfig
olcDatabase: mdb
olcSuffix: dc=test
olcDbDirectory: {folder}/db
olcAccess: to attrs=userPassword by anonymous auth by * none
olcAccess: to * by dn.exact="cn=node,dc=test" read by anonymous auth by * none

dn: olcOverlay=ppolicy,olcDatabase={{1}}mdb,cn=config
objectClass: olcOverlayConfig
objectClass: olcPPolicyConfig
olcOverlay: ppolicy
olcPPolicyUseLockout: TRUE
"""

_ENTRIES = """\
dn: dc=test
objectClass: dcObject
objectClass: organization
dc: test
o: Test Hospital

dn: cn=node,dc=test
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: node
userPassword: {service}

dn: ou=people,dc=test
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=test
objectClass: organizationalUnit
ou: groups

dn: ou=elsewhere,dc=test
objectClass: organizationalUnit
ou: elsewhere

dn: ou=branch,dc=test
objectClass: referral
objectClass: extensibleObject
ou: branch
ref: {referral}/ou=branch,dc=test

dn: cn=policy,dc=test
objectClass: device
objectClass: pwdPolicy
cn: policy
pwdAttribute: userPassword
pwdMaxAge: 86400
pwdMaxFailure: 3
pwdLockout: TRUE
pwdMustChange: TRUE
"""


def person(
    name: str, passcode: str = "", *, ou: str = "people", uids: tuple[str, ...] | None = None
) -> str:
    """Return the LDIF of somebody, ``cn=NAME``; without `uids` their only uid is the name."""
    rows = [("dn", f"cn={escape_dn_chars(name)},ou={ou},dc=test"), ("objectClass", "inetOrgPerson")]
    rows += [("cn", name), ("sn", name)]
    rows += [("uid", uid) for uid in ((name,) if uids is None else uids)]
    rows += [("userPassword", passcode)] if passcode else []
    # base64, as LDIF wants it for what is not plain ASCII (RFC 2849)
    return "\n" + "".join(f"{key}:: {b64encode(v.encode()).decode()}\n" for key, v in rows)


def group(name: str, *members: str, ou: str = "groups") -> str:
    """Return the LDIF of a group of `members`, DNs."""
    head = f"\ndn: cn={name},ou={ou},dc=test\nobjectClass: groupOfNames\ncn: {name}\n"
    return head + "".join(f"member: {member}\n" for member in members)


class Directory(Part):
    """slapd, running while the ``with`` block does.

    Parameters
    ----------
    folder : Path
        Its own; configuration, data and log.
    anchor : Path
        Certificate of the authority that clients' certificates come from.
    credential : Leaf
        The server's.
    entries : str
        LDIF to add, see `person` and `group`.
    verify_client : str
        ``never``, ``try`` or ``demand``.
    referral : str
        Where ``ou=branch,dc=test`` refers searchers to.
    """

    def __init__(
        self,
        folder: Path,
        anchor: Path,
        credential: Leaf,
        entries: str = "",
        *,
        verify_client: str = "never",
        referral: str = "ldap://127.0.0.1:1",
        port: int | None = None,
    ) -> None:
        for program in (_SLAPD, _SLAPADD):
            if not program.exists():
                pytest.fail(f"{program} is missing: apt-get install slapd", pytrace=False)
        for name in ("db", "slapd.d"):
            (folder / name).mkdir(parents=True)
        configuration = _CONFIGURATION.format(
            folder=folder,
            anchor=anchor,
            crt=credential.crt,
            key=credential.key,
            verify_client=verify_client,
        )
        rows = _ENTRIES.format(service=SERVICE_PASSCODE, referral=referral) + entries
        for database, ldif in ((0, configuration), (1, rows)):
            path = folder / f"{database}.ldif"
            path.write_text(ldif, encoding="utf-8")
            run([_SLAPADD, "-q", f"-n{database}", "-F", folder / "slapd.d", "-l", path], check=True)
        number, secure = port or free_port(), free_port()
        # Not "localhost": libldap would compare the certificate with the name of this machine.
        self.url = f"ldap://127.0.0.1:{number}"
        self.secure_url = f"ldaps://127.0.0.1:{secure}"
        super().__init__(
            # "stats" names every operation and its DN, and no passcode.
            [
                _SLAPD,
                "-d",
                "stats",
                "-F",
                folder / "slapd.d",
                "-h",
                f"{self.url} {self.secure_url}",
            ],
            log=folder / "slapd.log",
            port=number,
            ready=lambda: listening(number) and listening(secure),
        )


class Relay:
    """Passes connections on to `port` of loopback, and falls silent in the middle of an answer.

    Without a port it accepts and never says a word.

    Attributes
    ----------
    limit : int
        Bytes of the answers it passes on, per connection.
    hangs_up : bool
        Once set, the next word of a client ends its connection.
    heard : bytearray
        What all clients sent.
    connections : int
        How many there were.
    """

    def __init__(self, port: int | None = None, limit: int = 1 << 30) -> None:
        self.limit = limit
        self.hangs_up = False
        self.heard = bytearray()
        self.connections = 0
        self._target = port
        self._open: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = int(self._server.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Relay:
        self._threads[0].start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)  # wakes whoever waits in accept
        self._threads[0].join(20)
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(20)
        for one in (self._server, *self._open):
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self.connections += 1
                self._open.append(client)
                if self._target is not None:
                    server = socket.create_connection(("127.0.0.1", self._target))
                    self._open.append(server)
                    self._start(self._to_server, client, server)
                    self._start(self._to_client, server, client)
                else:
                    self._start(self._to_server, client, None)

    def _start(self, *call: Any) -> None:
        thread = threading.Thread(target=call[0], args=call[1:])
        self._threads.append(thread)
        thread.start()

    def _to_server(self, client: socket.socket, server: socket.socket | None) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                self.heard += data
                if self.hangs_up:
                    client.shutdown(socket.SHUT_RDWR)
                    return
                if server is not None:
                    server.sendall(data)
            if server is not None:
                server.shutdown(socket.SHUT_WR)

    def _to_client(self, server: socket.socket, client: socket.socket) -> None:
        left = self.limit
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data[: max(0, left)])
                left -= len(data)
