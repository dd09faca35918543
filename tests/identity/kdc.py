"""A Kerberos realm of our own: MIT's KDC on loopback, throw-away principals and keytabs."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from dicom_secure_node.identity.claims import Claim, IdentityType, PeerFacts
from dicom_secure_node.identity.kerberos import KerberosBackend, OutgoingTicket
from tests.parts import Part, free_port

SERVICE = "dicom/localhost"
PROGRAMS = {
    # program: (full path on Debian 12, Debian package)
    "kdb5_util": ("/usr/sbin/kdb5_util", "krb5-kdc"),
    "krb5kdc": ("/usr/sbin/krb5kdc", "krb5-kdc"),
    "kadmin.local": ("/usr/sbin/kadmin.local", "krb5-admin-server"),
    "kinit": ("/usr/bin/kinit", "krb5-user"),
}


def program(name: str) -> str:
    """Return a program's full path, or fail naming its Debian package."""
    path, package = PROGRAMS[name]
    if not Path(path).exists():
        pytest.fail(f"{path} is missing: apt-get install {package}", pytrace=False)
    return path


class Realm:
    """A realm and its KDC, running while the ``with`` block does.

    libkrb5 in this process obeys `environment` too: put it there with `monkeypatch.setenv`.

    Parameters
    ----------
    folder : Path
        For its database, keytabs and credential caches.
    name : str
        Of the realm.
    others : sequence of Realm
        Realms to know the KDCs of. A user of theirs is known here once both sides have the
        same ``krbtgt`` principal (`trust`).
    """

    def __init__(
        self, folder: Path, name: str = "DICOM.TEST", others: Sequence[Realm] = ()
    ) -> None:
        self.name = name
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._others = others
        self._write_configuration()
        self._run("kdb5_util", "create", "-s", "-r", name, "-P", "master")
        self._kdc = Part(
            [program("krb5kdc"), "-n"],
            log=folder / "kdc.log",
            port=self.port,
            env={**os.environ, **self.environment},
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes Kerberos programs use this realm; no cache of the user's."""
        return {
            "KRB5_CONFIG": str(self.folder / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(self.folder / "kdc.conf"),
            "KRB5CCNAME": f"FILE:{self.folder}/none",
            "LC_ALL": "C",
        }

    def _write_configuration(self) -> None:
        realms = "".join(
            f" {one.name} = {{\n  kdc = 127.0.0.1:{one.port}\n }}\n"
            for one in (self, *self._others)
        )
        (self.folder / "krb5.conf").write_text(
            f"""[libdefaults]
 default_realm = {self.name}
 dns_lookup_kdc = false
 dns_canonicalize_hostname = false
 rdns = false
 udp_preference_limit = 1
[realms]
{realms}"""
        )
        (self.folder / "kdc.conf").write_text(
            f"""[realms]
 {self.name} = {{
  database_name = {self.folder}/principal
  key_stash_file = {self.folder}/stash
  kdc_listen = 127.0.0.1:{self.port}
  kdc_tcp_listen = 127.0.0.1:{self.port}
 }}
"""
        )

    def _run(self, name: str, *arguments: str, stdin: str = "") -> None:
        done = subprocess.run(
            [program(name), *arguments],
            input=stdin,
            text=True,
            capture_output=True,
            env={**os.environ, **self.environment},
            timeout=60,
            check=False,
        )
        if done.returncode or "while" in done.stderr:  # kadmin.local exits with 0 whatever happens
            pytest.fail(f"{name} {arguments}\n{done.stdout}\n{done.stderr}")

    def __enter__(self) -> Realm:
        self._kdc.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._kdc.stop()

    def kadmin(self, *queries: str) -> None:
        """Run commands of kadmin."""
        for query in queries:
            self._run("kadmin.local", "-q", query)

    def user(self, name: str, password: str = "secret") -> None:
        """Add a user."""
        self.kadmin(f'addprinc -pw {password} "{name}"')

    def service(self, name: str, keytab: str = "svc.keytab") -> Path:
        """Add a service where it is new, give it a new key, and add that to a keytab."""
        path = self.folder / keytab
        known = self.folder / (name.replace("/", "_") + ".known")
        if not known.exists():
            self.kadmin(f"addprinc -randkey {name}")
            known.touch()
        self.kadmin(f"ktadd -k {path} {name}")
        return path

    def trust(self, other: Realm) -> None:
        """Take users of `other`."""
        for realm in (self, other):
            realm.kadmin(f"addprinc -pw shared krbtgt/{self.name}@{other.name}")

    def login(self, user: str, password: str = "secret", *options: str, cache: str = "") -> str:
        """Log `user` in and return the credential cache, in libkrb5's notation."""
        where = f"FILE:{self.folder}/cc-{cache or user.replace('/', '_')[:50]}"
        self._run("kinit", *options, "-c", where, user, stdin=f"{password}\n")
        return where


@dataclass(frozen=True)
class Site:
    """A realm, who is known there, and who is not.

    OTHER.TEST is a realm ours trusts; the stranger's realm only has the same name.
    """

    realm: Realm
    keytab: Path  # of dicom/localhost and ldap/localhost
    stale: Path  # of dicom/stale, whose key has been replaced
    ada: str  # her credential cache
    short: str  # hers, for ten minutes
    bob: str  # of the other realm
    cyd: str  # of the stranger's

    def ticket(self, principal: str = SERVICE, cache: str = "", **options: Any) -> bytes:
        """Return a Primary-field with a fresh ticket."""
        with OutgoingTicket(principal, cache=cache or self.ada, **options) as ticket:
            return ticket.claim.primary

    def backend(self, **options: Any) -> KerberosBackend:
        """Return a back-end with an empty memory."""
        options = {"keytab": self.keytab, "principal": SERVICE} | options
        return KerberosBackend(options.pop("keytab"), options.pop("principal"), **options)


@contextmanager
def running(root: Path) -> Iterator[Site]:
    """Start three KDCs; libkrb5 in this process knows the first two meanwhile."""
    with (
        pytest.MonkeyPatch.context() as patch,
        Realm(root / "stranger") as stranger,
        Realm(root / "other", "OTHER.TEST") as other,
        Realm(root / "ours", others=[other]) as realm,
    ):
        for name in ("ada", "ada/admin", "WELLKNOWN/NOBODY", "a" * 260):
            realm.user(name)
        other.user("bob")
        stranger.user("cyd")
        realm.trust(other)
        other.trust(realm)
        stale = realm.service("dicom/stale", "stale.keytab")
        realm.service("dicom/stale", "unused.keytab")
        keytab = realm.service(SERVICE)
        realm.service("ldap/localhost")
        other.service(SERVICE)
        stranger.service(SERVICE)
        obey(patch, stranger)
        cyd = stranger.login("cyd")
        OutgoingTicket(SERVICE, cache=cyd).close()  # the cache holds it from now on
        obey(patch, realm)
        yield Site(
            realm,
            keytab,
            stale,
            ada=realm.login("ada"),
            short=realm.login("ada", "secret", "-l", "10m", cache="short"),
            bob=realm.login("bob@OTHER.TEST", cache="bob"),
            cyd=cyd,
        )


def obey(patch: pytest.MonkeyPatch, realm: Realm) -> None:
    """Have libkrb5 in this process use a realm's configuration."""
    for variable, value in realm.environment.items():
        patch.setenv(variable, value)


def claim(field: bytes, answer: bool = False) -> Claim:
    return Claim(IdentityType.KERBEROS, field, response_requested=answer)


def shifted(minutes: float) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + timedelta(minutes=minutes)


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def pieces(secret: bytes) -> set[str]:
    """Return what of a ticket would show up if some of it were printed."""
    tail = secret[-48:]
    return {tail.hex()[:16], repr(tail)[2:20]} if len(secret) > 64 and any(tail) else set()


def validations_per_second(
    backend: KerberosBackend, principal: str, cache: str, *, count: int = 400, threads: int = 1
) -> float:
    """Return how many tickets a second `backend` verifies, AP-REP included.

    The tickets are made before the clock starts: each may be used once. `cache` holds a
    ticket for `principal` already, or the KDC is asked once.
    """
    claims = []
    for _ in range(count):
        with OutgoingTicket(principal, cache=cache) as ticket:
            claims.append(ticket.claim)
    errors: list[BaseException] = []

    def work(share: Sequence[Any]) -> None:
        try:
            for claim in share:
                backend.verify(claim, PeerFacts(protected=True))
        except BaseException as exc:
            errors.append(exc)

    workers = [threading.Thread(target=work, args=(claims[n::threads],)) for n in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - start
    if errors:
        raise errors[0]
    return count / seconds
