"""A small certification authority in one folder, for labs and first steps.

A hospital has its own authority; `LocalAuthority.request` makes what it wants to be sent. This
one keeps its key in a plain file, so whoever can read the folder can be anyone::

    ca.crt  ca.key  ca.crl  issued.json      the authority
    NAME.crt  NAME.key                       each certificate with its key
    NAME.csr  NAME.key                       each request

Keys are PKCS#8 PEM, mode 0600 from the first byte; the rest is 0644.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable
from dicom_secure_node.pki.building import (
    BACKDATED,
    KeyKind,
    Usage,
    authority_key,
    certificate_builder,
    extended_key_usage,
    general_names,
    is_host,
    key_pem,
    key_usage,
    make_key,
    subject_name,
)
from dicom_secure_node.pki.credential import Credential, load_credential
from dicom_secure_node.pki.files import read_certificates, write_file
from dicom_secure_node.pki.register import Issued, read_register, write_register

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")

# What a node's home holds (`LocalAuthority.equip`). PS3.15 B.13 asks a server for RSA and EC; the
# client's is RSA because some peers offer no other suites in TLS 1.2.
STANDARD: tuple[tuple[str, KeyKind, Usage], ...] = (
    ("node", "rsa", "node"),
    ("node-ec", "ec", "node"),
    ("client", "rsa", "client"),
)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


def utc_now() -> datetime.datetime:
    """Return the present time in UTC, whole seconds as X.509 wants."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def local_hosts() -> tuple[str, ...]:
    """Return the names this machine surely has: the loopback ones and its own host name."""
    own = socket.gethostname()
    return (*LOCAL_HOSTS, own) if is_host(own) and own not in LOCAL_HOSTS else LOCAL_HOSTS


@dataclass(frozen=True)
class LocalAuthority:
    """The authority in `folder`, existing or to be made by `create`.

    Every change is made under a lock on the folder, so two processes may work in it.

    Attributes
    ----------
    folder : Path
        Where its files are.
    clock : callable
        Returns the time in UTC.
    """

    folder: Path
    clock: Callable[[], datetime.datetime] = utc_now

    @property
    def exists(self) -> bool:
        """Return whether the folder holds an authority."""
        return (self.folder / "ca.crt").exists()

    def create(
        self, organisation: str = "DICOM secure node", *, days: int = 3650
    ) -> x509.Certificate:
        """Make the authority, with an empty CRL, and return its certificate.

        The key is RSA 3072. A random word in the Common Name tells two authorities of one
        organisation apart, where software finds issuers by name.

        Raises
        ------
        ConfigurationError
            There is one already, or `organisation` or `days` does not do.
        """
        _check_days(days)
        with self._locked(make=True):
            for path in (self.folder / "ca.crt", self.folder / "ca.key"):
                if path.exists():
                    raise ConfigurationError("exists already; nothing was changed", str(path))
            key = rsa.generate_private_key(65537, 3072)
            subject = subject_name(f"Local CA {secrets.token_hex(4)}", organisation)
            certificate = (
                certificate_builder(subject, key.public_key(), self.clock(), days)
                .issuer_name(subject)
                .add_extension(authority_key(key), critical=False)
                .add_extension(x509.BasicConstraints(True, 0), critical=True)
                .add_extension(key_usage(ca=True), critical=True)
                .sign(key, hashes.SHA256())
            )
            write_file(self.folder / "ca.key", key_pem(key), 0o600)
            write_register(self.folder / "issued.json", ())
            self._write_crl(Credential(certificate, (), key), ())
            write_file(self.folder / "ca.crt", certificate.public_bytes(Encoding.PEM), 0o644)
            return certificate

    def issue(
        self,
        name: str,
        *,
        key: KeyKind = "rsa",
        hosts: Sequence[str] = LOCAL_HOSTS,
        usage: Usage = "node",
        days: int = 825,
        renew: bool = False,
    ) -> Credential:
        """Make a key and certificate, write ``NAME.crt`` and ``NAME.key``, and return them.

        Parameters
        ----------
        name : str
            Stem of the files and Common Name: letters, digits and ``._-``, at most 64.
        key : {"rsa", "ec"}
            RSA 2048, which serves peers of every profile, or P-256 (PS3.15 B.13 servers have both).
        hosts : sequence of str
            DNS names and IP addresses for the subjectAltName.
        usage : {"node", "client"}
            A node answers and opens connections, a client only opens them.
        days : int
            Validity; it never outlasts the authority's own.
        renew : bool
            Replace an existing pair. The old certificate stays valid until it expires: revoke
            it first where its key may be known to others.

        Raises
        ------
        ConfigurationError
            There is no authority, the name or a host does not do, or `name` exists already.
        """
        _check_name(name)
        _check_days(days)
        names = general_names(hosts)
        with self._locked():
            if not renew:
                self._check_free(name, "crt", "key")
            authority = self._load()
            now = self.clock()
            left = (authority.certificate.not_valid_after_utc - now).days
            if left < 1:
                raise ConfigurationError("expired, or does so today", str(self.folder / "ca.crt"))
            made = make_key(key)
            subject = subject_name(name, _organisation(authority.certificate))
            leaf = (
                certificate_builder(subject, made.public_key(), now, min(days, left))
                .issuer_name(authority.certificate.subject)
                .add_extension(authority_key(authority.key), critical=False)
                .add_extension(x509.BasicConstraints(False, None), critical=True)
                .add_extension(key_usage(made), critical=True)
                .add_extension(extended_key_usage(usage), critical=False)
                .add_extension(names, critical=False)
                .sign(authority.key, hashes.SHA256())
            )
            # Known before it exists: a certificate nobody remembers could not be revoked.
            self._remember(name, leaf)
            write_file(self.folder / f"{name}.key", key_pem(made), 0o600)
            write_file(self.folder / f"{name}.crt", leaf.public_bytes(Encoding.PEM), 0o644)
            return Credential(leaf, (), made)

    def equip(self, hosts: Sequence[str] = LOCAL_HOSTS) -> tuple[str, ...]:
        """Make what is missing of a node's authority and credentials (`STANDARD`).

        Returns
        -------
        tuple of str
            The names made now, ``ca`` included; empty when all was there.
        """
        made: list[str] = []
        if not self.exists:
            self.create()
            made.append("ca")
        for name, key, usage in STANDARD:
            if not (self.folder / f"{name}.crt").exists():
                self.issue(name, key=key, hosts=hosts, usage=usage)
                made.append(name)
        return tuple(made)

    def request(
        self,
        name: str,
        *,
        key: KeyKind = "rsa",
        hosts: Sequence[str] = LOCAL_HOSTS,
        usage: Usage = "node",
        organisation: str = "DICOM secure node",
    ) -> x509.CertificateSigningRequest:
        """Make a key and a request for another authority: ``NAME.key`` and ``NAME.csr``.

        Needs no authority in the folder. The answer belongs beside them as ``NAME.crt``, with
        the intermediates after it.

        Raises
        ------
        ConfigurationError
            The name or a host does not do, or a file of that name exists already.
        """
        _check_name(name)
        names = general_names(hosts)
        with self._locked(make=True):
            self._check_free(name, "key", "csr", "crt")
            made = make_key(key)
            request = (
                x509.CertificateSigningRequestBuilder()
                .subject_name(subject_name(name, organisation))
                .add_extension(key_usage(made), critical=True)
                .add_extension(extended_key_usage(usage), critical=False)
                .add_extension(names, critical=False)
                .sign(made, hashes.SHA256())
            )
            write_file(self.folder / f"{name}.key", key_pem(made), 0o600)
            write_file(self.folder / f"{name}.csr", request.public_bytes(Encoding.PEM), 0o644)
            return request

    def revoke(self, which: str | x509.Certificate) -> Issued:
        """Take a certificate back, rewrite ``ca.crl`` and return the register's entry.

        The list says it is current for as long as the authority's certificate is valid, because
        nobody renews it in a lab. A peer that has read it before must read it again.
        Revoking twice changes nothing.

        Parameters
        ----------
        which : str or x509.Certificate
            A name stands for the certificate in ``NAME.crt``; one replaced by renewal is given
            as itself.

        Raises
        ------
        ConfigurationError
            There is no authority or no such certificate, or another authority issued it.
        """
        if isinstance(which, str):
            _check_name(which)
            leaf = read_certificates(self.folder / f"{which}.crt")[0]
        else:
            leaf = which
        with self._locked():
            authority = self._load()
            issued = self.issued()
            entry = next((one for one in issued if one.serial == leaf.serial_number), None)
            if entry is None or leaf.issuer != authority.certificate.subject:
                raise ConfigurationError("the certificate was not issued here", str(self.folder))
            if entry.revoked is None:
                done = replace(entry, revoked=self.clock())
                issued = tuple(done if one is entry else one for one in issued)
                write_register(self.folder / "issued.json", issued)
                entry = done
            # Also when it was revoked before: a crash may have come between the two files.
            self._write_crl(authority, issued)
            return entry

    def issued(self) -> tuple[Issued, ...]:
        """Return every certificate issued so far, oldest first."""
        return read_register(self.folder / "issued.json")

    def _remember(self, name: str, leaf: x509.Certificate) -> None:
        subject = leaf.subject.rfc4514_string()
        entry = Issued(name, leaf.serial_number, subject, leaf.not_valid_after_utc)
        write_register(self.folder / "issued.json", (*self.issued(), entry))

    def _load(self) -> Credential:
        if not self.exists:
            raise ConfigurationError("holds no authority: ca.crt is missing", str(self.folder))
        return load_credential(self.folder / "ca.crt", self.folder / "ca.key")

    def _write_crl(self, authority: Credential, issued: Sequence[Issued]) -> None:
        revoked = [(one.serial, one.revoked) for one in issued if one.revoked is not None]
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(authority.certificate.subject)
            .last_update(self.clock() - BACKDATED)
            .next_update(authority.certificate.not_valid_after_utc)
            .add_extension(authority_key(authority.key), critical=False)
            # Each list is longer than the one before, so its length will do as its number.
            .add_extension(x509.CRLNumber(len(revoked) + 1), critical=False)
        )
        for serial, when in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
            builder = builder.add_revoked_certificate(entry.build())
        crl = builder.sign(authority.key, hashes.SHA256())
        write_file(self.folder / "ca.crl", crl.public_bytes(Encoding.PEM), 0o644)

    def _check_free(self, name: str, *suffixes: str) -> None:
        for path in (self.folder / f"{name}.{suffix}" for suffix in suffixes):
            if path.exists() or path.is_symlink():
                raise ConfigurationError("exists already; nothing was changed", str(path))

    @contextmanager
    def _locked(self, *, make: bool = False) -> Iterator[None]:
        """Hold the folder's lock; `make` the folder first where it is absent."""
        try:
            if make:
                self.folder.mkdir(parents=True, exist_ok=True)
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as exc:
            reason = (exc.strerror or "cannot be used").lower()
            raise ConfigurationError(reason, str(self.folder)) from exc
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        except PermissionError as exc:
            raise ConfigurationError("permission denied", str(exc.filename)) from exc
        except OSError as exc:
            reason = f"{exc.filename or self.folder}: {(exc.strerror or 'cannot write').lower()}"
            raise ServiceUnavailable("disk", reason) from exc
        finally:
            os.close(folder)  # and with it the lock


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.lower() == "ca":
        wanted = "1 to 64 letters, digits and . _ -, not 'ca', no . or - at the start"
        raise ConfigurationError(f"found the name {name!r}, wanted {wanted}")


def _check_days(days: int) -> None:
    if not 1 <= days <= 36500:
        raise ConfigurationError(f"found {days} days of validity, wanted 1 to 36500")


def _organisation(authority: x509.Certificate) -> str:
    found = authority.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(found[0].value) if found else "DICOM secure node"
