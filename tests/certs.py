"""Throw-away certificates for the tests: good ones and every odd one.

A tree lives in memory until asked for files::

    ca = Ca()                                     # a root, P-256
    node = ca.write(folder, "node")               # folder/node.crt, folder/node.key
    old = ca.write(folder, "old", expired=True)
    lost = ca.write(folder, "lost", key="rsa")
    ca.crl(folder / "ca.crl", revoked=[lost])
    anchor = ca.anchor(folder / "ca.crt")
    below = ca.intermediate()                     # a Ca; its leaves carry the chain in NAME.crt

P-256 is the default because RSA keys are slow to make; those are kept per process and name.
Nothing here is fit for anything but tests.
"""

from __future__ import annotations

import datetime
import ipaddress
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku
from cryptography.x509.oid import NameOID

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
KeyKind = Literal["ec", "ec384", "ec521", "rsa", "rsa1024", "rsa3072", "rsa4096"]

DAY = datetime.timedelta(days=1)
LOCAL = ("localhost", "127.0.0.1", "::1")

CURVES: Mapping[str, ec.EllipticCurve] = {
    "ec": ec.SECP256R1(),
    "ec384": ec.SECP384R1(),
    "ec521": ec.SECP521R1(),
}
RSA_BITS: Mapping[str, int] = {"rsa": 2048, "rsa1024": 1024, "rsa3072": 3072, "rsa4096": 4096}

USAGES: Mapping[str, tuple[x509.ObjectIdentifier, ...]] = {
    "both": (Eku.SERVER_AUTH, Eku.CLIENT_AUTH),
    "server": (Eku.SERVER_AUTH,),
    "client": (Eku.CLIENT_AUTH,),
    "mail": (Eku.EMAIL_PROTECTION,),
    "time": (Eku.TIME_STAMPING,),  # RFC 3161 2.3: critical, and the only purpose
    "ocsp": (Eku.OCSP_SIGNING,),
    "none": (),  # no extended key usage extension at all
}

#: What can be wrong with one leaf, as arguments of `Ca.write`. The rest needs more than a leaf:
#: revoked (`Ca.crl`), unknown issuer (a second `Ca`), issuer that is no CA (`ca_flag=False`).
ODD: Mapping[str, Mapping[str, Any]] = {
    "expired": {"expired": True},
    "not-yet-valid": {"not_yet_valid": True},
    "self-signed": {"self_signed": True},
    "bad-signature": {"bad_signature": True},
    "wrong-usage": {"usage": "mail"},
    "client-only": {"usage": "client"},
    "server-only": {"usage": "server"},
    "wrong-name": {"hosts": ("other.example", "192.0.2.1")},
    "no-name": {"hosts": ()},
    "weak-key": {"key": "rsa1024"},
    "sha1": {"digest": "sha1"},
    "wrong-key": {"wrong_key": True},
    "encrypted-key": {"passphrase": b"correct horse"},
}


def now() -> datetime.datetime:
    """Return the present time in UTC, whole seconds as X.509 wants."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


@lru_cache(maxsize=64)
def _rsa_key(bits: int, name: str) -> rsa.RSAPrivateKey:  # name: a cache key
    return rsa.generate_private_key(65537, bits)


def make_key(kind: KeyKind = "ec", name: str = "") -> PrivateKey:
    """Return a private key; RSA keys of one kind and name are made once per process."""
    if kind in RSA_BITS:
        return _rsa_key(RSA_BITS[kind], name)
    return ec.generate_private_key(CURVES[kind])


def key_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """Return `key` as PKCS#8 PEM, encrypted where there is a passphrase."""
    lock: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        lock = BestAvailableEncryption(passphrase)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)


def general_names(names: Iterable[str]) -> list[x509.GeneralName]:
    """Return hosts, addresses, ``scheme:...`` URIs and mail addresses as what each one is."""
    found: list[x509.GeneralName] = []
    for name in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            if "@" in name:
                found.append(x509.RFC822Name(name))
            elif ":" in name:
                found.append(x509.UniformResourceIdentifier(name))
            else:
                found.append(x509.DNSName(name))
    return found


@dataclass(frozen=True)
class Leaf:
    """A certificate and key in files.

    Attributes
    ----------
    crt, key : Path
        PEM; `crt` holds the leaf first, then the intermediates below the root.
    """

    name: str
    crt: Path
    key: Path
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    private_key: PrivateKey = field(repr=False)

    @property
    def base(self) -> Path:
        """Return the common stem, ``folder/name``, of both files."""
        return self.crt.with_suffix("")


class Ca:
    """One certification authority in memory.

    Parameters
    ----------
    name : str
        Common Name.
    issuer : Ca, optional
        The one above; none for a root.
    ca_flag : bool
        False makes the odd one: a certificate that signs and is not allowed to.
    expired : bool
        The authority's own certificate has run out.
    """

    def __init__(
        self,
        name: str = "Test CA",
        *,
        issuer: Ca | None = None,
        key: KeyKind = "ec",
        ca_flag: bool = True,
        expired: bool = False,
    ) -> None:
        self.name = name
        self.issuer = issuer
        self.key = make_key(key, f"CA {name}")
        self.certificate: x509.Certificate
        subject = _subject(name)
        signer, issued_by = (self.key, subject)
        if issuer is not None:
            signer, issued_by = issuer.key, issuer.certificate.subject
        end = now() - DAY if expired else now() + 3650 * DAY
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issued_by)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() - 800 * DAY)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca_flag, None), critical=True)
            .add_extension(_key_usage(self.key, ca=ca_flag), critical=True)
            .add_extension(_ski(self.key), critical=False)
            .add_extension(_aki(signer), critical=False)
        )
        self.certificate = builder.sign(signer, hashes.SHA256())

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """Return the intermediates from this one upwards, the root left out."""
        if self.issuer is None:
            return ()
        return (self.certificate, *self.issuer.chain)

    def intermediate(
        self, name: str = "Test Intermediate CA", *, key: KeyKind = "ec", ca_flag: bool = True
    ) -> Ca:
        """Return an authority below this one."""
        return Ca(name, issuer=self, key=key, ca_flag=ca_flag)

    def anchor(self, path: Path) -> Path:
        """Write this authority's certificate to `path` as PEM and return the path."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return path

    def certify(
        self,
        name: str,
        private_key: PrivateKey,
        *,
        hosts: Sequence[str] = LOCAL,
        usage: str = "both",
        start: datetime.datetime | None = None,
        end: datetime.datetime | None = None,
        digest: str = "sha256",
        self_signed: bool = False,
        bad_signature: bool = False,
        common_name: str | None = None,
    ) -> x509.Certificate:
        """Return a leaf certificate for `private_key`; `usage` is a key of `USAGES`."""
        subject = _subject(common_name if common_name is not None else name)
        signer = private_key if self_signed else self.key
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if self_signed else self.certificate.subject)
            .public_key(private_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start or now() - DAY)
            .not_valid_after(end or now() + 90 * DAY)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(_key_usage(private_key, ca=False, signs=usage == "time"), critical=True)
            .add_extension(_ski(private_key), critical=False)
            .add_extension(_aki(signer), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName(general_names(hosts))
            builder = builder.add_extension(names, critical=False)
        if USAGES[usage]:
            purposes = x509.ExtendedKeyUsage(USAGES[usage])
            builder = builder.add_extension(purposes, critical=usage == "time")
        certificate = builder.sign(signer, hashes.SHA256())
        if digest == "sha1":
            certificate = self._signed_with_sha1(certificate, private_key)
        return _spoilt(certificate) if bad_signature else certificate

    def _signed_with_sha1(
        self, certificate: x509.Certificate, private_key: PrivateKey
    ) -> x509.Certificate:
        """Return `certificate` made again with SHA-1, which `cryptography` no longer does."""
        request = x509.CertificateSigningRequestBuilder().subject_name(certificate.subject)
        for extension in certificate.extensions:
            request = request.add_extension(extension.value, critical=extension.critical)
        command = "openssl x509 -req -sha1 -days 90 -copy_extensions copyall -CA ca.pem -set_serial"
        with tempfile.TemporaryDirectory() as folder:
            issuer = key_pem(self.key) + self.certificate.public_bytes(Encoding.PEM)
            Path(folder, "ca.pem").write_bytes(issuer)
            done = subprocess.run(
                [*command.split(), str(certificate.serial_number)],
                input=request.sign(private_key, hashes.SHA256()).public_bytes(Encoding.PEM),
                capture_output=True,
                check=True,
                cwd=folder,
            )
        return x509.load_pem_x509_certificate(done.stdout)

    def write(
        self,
        folder: Path,
        name: str,
        *,
        key: KeyKind = "ec",
        expired: bool = False,
        not_yet_valid: bool = False,
        self_signed: bool = False,
        wrong_key: bool = False,
        passphrase: bytes | None = None,
        **more: Any,
    ) -> Leaf:
        """Make a leaf, write ``NAME.crt`` (chain included) and ``NAME.key``, and return it.

        `more` goes to `certify`: hosts, usage, start, end, digest, bad_signature, common_name.
        With `wrong_key` the key file holds another key of the same kind.
        """
        if expired:
            more |= {"start": now() - 30 * DAY, "end": now() - DAY}
        if not_yet_valid:
            more |= {"start": now() + 30 * DAY, "end": now() + 60 * DAY}
        private_key = make_key(key, name)
        certificate = self.certify(name, private_key, self_signed=self_signed, **more)
        chain = () if self_signed else self.chain
        folder.mkdir(parents=True, exist_ok=True)
        leaf = Leaf(
            name, folder / f"{name}.crt", folder / f"{name}.key", certificate, chain, private_key
        )
        leaf.crt.write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in (certificate, *chain)))
        kept = make_key(key, f"not {name}") if wrong_key else private_key
        leaf.key.touch(mode=0o600)
        leaf.key.write_bytes(key_pem(kept, passphrase))
        return leaf

    def crl(
        self,
        path: Path,
        revoked: Iterable[Leaf | Ca | x509.Certificate | int] = (),
        *,
        expired: bool = False,
        number: int = 1,
    ) -> Path:
        """Write this authority's CRL to `path` as PEM and return the path.

        Members of `revoked` are leaves, intermediates, certificates or serial numbers. An
        `expired` list was due for renewal yesterday.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now() - 30 * DAY)
            .next_update(now() - DAY if expired else now() + 30 * DAY)
            .add_extension(_aki(self.key), critical=False)
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for member in revoked:
            entry = (
                x509.RevokedCertificateBuilder()
                .serial_number(member if isinstance(member, int) else _serial(member))
                .revocation_date(now() - 20 * DAY)
                .add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False)
            )
            builder = builder.add_revoked_certificate(entry.build())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return path


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test Hospital"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _serial(member: Leaf | Ca | x509.Certificate) -> int:
    if isinstance(member, x509.Certificate):
        return member.serial_number
    return member.certificate.serial_number


def _ski(key: PrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _aki(key: PrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _key_usage(key: PrivateKey, *, ca: bool, signs: bool = False) -> x509.KeyUsage:
    """Return the usage of an authority, of a key that signs and nothing else, or of a TLS key."""
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    tls = not ca and not signs
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=not ca,
        key_encipherment=tls and is_rsa,
        data_encipherment=False,
        key_agreement=tls and not is_rsa,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _spoilt(certificate: x509.Certificate) -> x509.Certificate:
    """Return `certificate` with a changed signature that still is well-formed."""
    # The last byte of the DER lies in the signature's last integer: any value there is valid DER.
    der = bytearray(certificate.public_bytes(Encoding.DER))
    der[-1] ^= 1
    return x509.load_der_x509_certificate(bytes(der))
