"""Which certificate may use which AE title.

An AE title is sixteen characters anybody can type; a certificate is proof. A binding says
that whoever calls himself CT1 must hold the certificate named here. PS3.15 leaves this to
the site (B.1 to B.13 prove the node, not its title).

A certificate is named in one of these ways:

==================  ====================================================================
``CN=ct1,O=Site``   subject, RFC 4514, part by part; a part may hold ``*`` and ``?``, and a
                    last part ``*`` stands for any that follow: ``CN=ct*,O=Site,*``
``dns:NAME``        a dNSName of the subjectAltName, without case; ``*`` allowed
``uri:URI``         a URI of the subjectAltName; ``*`` allowed
``ip:ADDRESS``      an iPAddress of the subjectAltName
``sha256:HEX``      SHA-256 of the certificate in DER; colons and case do not matter
==================  ====================================================================
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from dicom_secure_node.errors import AccessRefused, ConfigurationError
from dicom_secure_node.pki.names import subject_alternatives

_COMMA = re.compile(r"(?<!\\)((?:\\\\)*),")  # a comma that no backslash escapes
_SHA256 = re.compile(r"[0-9a-f]{64}")
ANYBODY = "*"


@dataclass(frozen=True)
class CertificatePattern:
    """One way to name a certificate, see the table of the module.

    Raises
    ------
    ConfigurationError
        The text is empty, not printable, or no SHA-256 where it claims to be one.
    """

    text: str

    def __post_init__(self) -> None:
        if not self.text.strip() or not self.text.isprintable():
            raise ConfigurationError(f"found {self.text!r}, wanted a name of a certificate")
        kind, value = self._parts()
        if kind == "sha256" and not _SHA256.fullmatch(value):
            raise ConfigurationError(f"found {self.text!r}, wanted sha256: and 64 hex digits")
        if kind == "subject" and "=" not in value and value != ANYBODY:
            raise ConfigurationError(
                f"found {self.text!r}, wanted a subject such as CN=ct1,O=Site, "
                "or dns:, uri:, ip:, sha256:"
            )

    def _parts(self) -> tuple[str, str]:
        kind, colon, value = self.text.partition(":")
        kind = kind.strip().lower()
        if colon and kind == "sha256":
            return kind, value.replace(":", "").replace(" ", "").lower()
        if colon and kind in ("dns", "uri", "ip", "subject"):
            return kind, value.strip()
        return "subject", self.text.strip()

    def matches(self, certificate: x509.Certificate) -> bool:
        """Return whether `certificate` is one of those meant."""
        kind, value = self._parts()
        if kind == "subject":
            return _subject_matches(value, certificate.subject)
        if kind == "sha256":
            return certificate.fingerprint(SHA256()).hex() == value
        names, addresses, uris = subject_alternatives(certificate)
        if kind == "dns":
            return any(fnmatchcase(name.lower(), value.lower()) for name in names)
        if kind == "ip":
            return value in {str(address) for address in addresses}
        return any(fnmatchcase(uri, value) for uri in uris)


def _subject_matches(pattern: str, subject: x509.Name) -> bool:
    """Compare part by part, so that ``*`` cannot reach over a comma the holder chose himself."""
    wanted = [part.strip() for part in _COMMA.sub("\\1\n", pattern).split("\n")]
    found = [rdn.rfc4514_string() for rdn in reversed(subject.rdns)]  # RFC 4514: last one first
    if wanted[-1] == ANYBODY:
        wanted.pop()
        found = found[: len(wanted)]
    return len(wanted) == len(found) and all(map(fnmatchcase, found, wanted))


@dataclass(frozen=True)
class Binding:
    """Whoever uses `calling_ae` must hold a certificate that has every name given.

    Attributes
    ----------
    calling_ae : str
        AE title without padding, or ``*`` for every title that has no binding of its own.
    certificate : tuple of CertificatePattern
        All of them must match. Several bindings for one title are alternatives.
    """

    calling_ae: str
    certificate: tuple[CertificatePattern, ...]

    def __post_init__(self) -> None:
        if not self.certificate:
            raise ConfigurationError(f"the binding of AE title {self.calling_ae!r} names nothing")

    @classmethod
    def of(
        cls, calling_ae: str, *, subject: str = "", san: str = "", fingerprint: str = ""
    ) -> Binding:
        """Return a binding from the keys of a ``[[certificate.binding]]`` table.

        Parameters
        ----------
        calling_ae : str
            The AE title.
        subject : str, optional
            RFC 4514.
        san : str, optional
            ``dns:``, ``uri:`` or ``ip:`` and the name; ``dns:`` may be left out.
        fingerprint : str, optional
            SHA-256 in hex.
        """
        if san and not san.lower().startswith(("dns:", "uri:", "ip:")):
            san = f"dns:{san}"
        if fingerprint and not fingerprint.lower().startswith("sha256:"):
            fingerprint = f"sha256:{fingerprint}"
        texts = (subject, san, fingerprint)
        return cls(calling_ae, tuple(CertificatePattern(text) for text in texts if text))


@dataclass(frozen=True)
class CertificateBindings:
    """All bindings of a node. A title without one, where there is no ``*``, is not checked."""

    bindings: tuple[Binding, ...] = ()

    def check(self, calling_ae: str, certificate: x509.Certificate | None) -> None:
        """Raise AccessRefused unless `certificate` may use `calling_ae`."""
        title = calling_ae.strip(" ")
        bound = self._for(title) or self._for(ANYBODY)
        if not bound:
            return
        if certificate is None:
            raise AccessRefused(
                f"AE title {title!r} is bound to a certificate, and the peer showed none"
            )
        if any(all(p.matches(certificate) for p in binding.certificate) for binding in bound):
            return
        raise AccessRefused(
            f"AE title {title!r} is bound to another certificate than "
            f"{certificate.subject.rfc4514_string()!r}"
        )

    def _for(self, title: str) -> Sequence[Binding]:
        return [binding for binding in self.bindings if binding.calling_ae == title]
