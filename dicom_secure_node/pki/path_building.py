"""Candidates for a certification path, from a certificate up to an anchor, within bounds.

RFC 5280 leaves the building of paths to the implementation (RFC 4158 describes it). Here it goes
by names alone: whether one certificate really signed the next is for validation, which begins at
the anchor, so that nothing is computed over what no anchor vouches for. A search without bounds
could be kept busy for ever by a dozen certificates that all name each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from asn1crypto import x509

# PKITS needs 7 certificates in a path; a hospital has 3 or 4.
MAX_LENGTH = 10
MAX_PATHS = 16
MAX_STEPS = 400


class Pool:
    """Certificates by subject.

    Parameters
    ----------
    anchors : iterable of x509.Certificate
        Each may stand at the end of a path; above others only if it is an authority
        (Basic Constraints, RFC 5280 4.2.1.9): a certificate trusted for itself vouches for nobody.
    between : iterable of x509.Certificate
        Whatever else is at hand.
    """

    def __init__(
        self, anchors: Iterable[x509.Certificate], between: Iterable[x509.Certificate] = ()
    ) -> None:
        self._anchors = {anchor.sha256: anchor for anchor in anchors}
        self._by_subject: defaultdict[str, list[x509.Certificate]] = defaultdict(list)
        self.between = tuple(
            {c.sha256: c for c in between if c.sha256 not in self._anchors}.values()
        )
        for certificate in (*self._anchors.values(), *self.between):
            self._by_subject[certificate.subject.hashable].append(certificate)

    def paths(self, leaf: x509.Certificate) -> Iterator[tuple[x509.Certificate, ...]]:
        """Yield candidate paths, leaf to anchor, likely ones first; at most `MAX_PATHS`."""
        if leaf.sha256 in self._anchors:
            yield (leaf,)
            return
        unfinished: list[tuple[x509.Certificate, ...]] = [(leaf,)]
        found = 0
        for _ in range(MAX_STEPS):
            if not unfinished or found == MAX_PATHS:
                return
            path = unfinished.pop()
            if len(path) > 1 and path[-1].sha256 in self._anchors:
                found += 1
                yield path
            elif len(path) < MAX_LENGTH:
                unfinished.extend((*path, issuer) for issuer in self._issuers(path))

    def _issuers(self, path: tuple[x509.Certificate, ...]) -> list[x509.Certificate]:
        """Return who may have issued the last of `path`, the likeliest last."""
        below = path[-1]
        seen = {certificate.sha256 for certificate in path}
        named = self._by_subject.get(below.issuer.hashable, ())
        possible = [c for c in named if c.sha256 not in seen and self._may_issue(c)]
        return sorted(possible, key=lambda issuer: self._likelihood(issuer, below))

    def _may_issue(self, certificate: x509.Certificate) -> bool:
        return certificate.sha256 not in self._anchors or bool(certificate.ca)

    def _likelihood(self, issuer: x509.Certificate, below: x509.Certificate) -> tuple[bool, bool]:
        # Key identifiers are hints and decide nothing (RFC 5280 4.2.1.1).
        same_key = below.authority_key_identifier == issuer.key_identifier
        return same_key, issuer.sha256 in self._anchors
