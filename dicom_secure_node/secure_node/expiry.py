"""When the certificates and revocation lists of a node run out, as its files have it now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from dicom_secure_node.config import PLAIN, NodeConfig
from dicom_secure_node.errors import SecureNodeError
from dicom_secure_node.node import measures
from dicom_secure_node.node.metrics import Reading
from dicom_secure_node.pki.files import read_certificates, read_crls

CREDENTIAL, TRUST, CRL = "credential", "trust", "crl"

_Named = tuple[str, Path]  # role and file
_Stamp = tuple[int, int, int]


class Expiries:
    """Reads the files a configuration names, again only when they have changed.

    A file is named by its last two parts (``pki/node.crt``), in full where two would be the same.
    """

    def __init__(self, config: NodeConfig) -> None:
        self._files = dict.fromkeys(_files_of(config))
        short = {path: "/".join(path.parts[-2:]) for _, path in self._files}
        times = Counter(short.values())
        self._labels = {
            path: name if times[name] == 1 else str(path) for path, name in short.items()
        }
        self._read: dict[_Named, tuple[_Stamp, list[float]]] = {}

    def readings(self) -> Iterator[Reading]:
        """Yield the end of each certificate and list, and which files can be read."""
        for role, path in self._files:
            file = self._labels[path]
            ends = self._ends(role, path)
            yield measures.READABLE, (role, file), float(ends is not None)
            for number, end in enumerate(ends or (), start=1):
                yield measures.EXPIRY, (role, file, str(number)), end

    def _ends(self, role: str, path: Path) -> list[float] | None:
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            before = self._read.get((role, path))
            if before is not None and before[0] == stamp:
                return before[1]
            ends = _ends_in(role, path)
        except (SecureNodeError, OSError):
            return None
        self._read[role, path] = (stamp, ends)
        return ends


def _ends_in(role: str, path: Path) -> list[float]:
    if role == CRL:
        lists = read_crls(path)
        return [one.next_update_utc.timestamp() for one in lists if one.next_update_utc]
    return [one.not_valid_after_utc.timestamp() for one in read_certificates(path)]


def _files_of(config: NodeConfig) -> Iterator[_Named]:
    for listener in config.listener:
        if listener.profile != PLAIN:
            yield from _named(listener.credential, listener.trust, listener.crl)
    for repository in config.audit.repository:
        yield from _named(repository.credential, repository.trust)
    signatures = config.signatures
    if signatures.looks:
        trust = (*signatures.trust, *signatures.intermediates, *signatures.timestamp_trust)
        yield from _named((), trust, signatures.crl)
    identity = config.identity
    if identity.ldap is not None:
        own = () if identity.ldap.credential is None else (identity.ldap.credential,)
        yield from _named(own, identity.ldap.trust, identity.ldap.crl)
    if identity.saml is not None:
        issuers = tuple(one.certificate for one in identity.saml.issuer)
        yield from _named(identity.saml.credential, issuers)
    if identity.jwt is not None:
        yield from _named((), identity.jwt.trust)


def _named(
    credentials: tuple[Path, ...], trust: tuple[Path, ...] = (), crl: tuple[Path, ...] = ()
) -> Iterator[_Named]:
    for base in credentials:
        yield CREDENTIAL, base.with_name(f"{base.name}.crt")
    for path in trust:
        yield TRUST, path
    for path in crl:
        yield CRL, path
