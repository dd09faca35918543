"""Every exception of the package, and what each one means on the wire.

Grouped by whose fault it is. An error that can reach a peer carries the answer the peer
gets; nobody upstairs has to translate it. Texts say what was found, what was wanted and
where. They never hold a passcode, ticket, token, private key or patient attribute.

::

    SecureNodeError
    ├── ConfigurationError            ours to mend before we listen
    │   └── MissingExtra              an optional package is not installed
    ├── Refused                       we said no, on purpose
    │   ├── HandshakeRefused          no association came about (TLS, PS3.15 Annex B)
    │   ├── AssociationRefused        A-ASSOCIATE-RJ (PS3.8 Table 9-21)
    │   │   ├── IdentityRefused       1, 2, 1 (PS3.7 D.3.3.7)
    │   │   ├── AccessRefused         1, 1, 1
    │   │   └── LimitReached          2, 3, 2
    │   └── OperationRefused          a DIMSE status (PS3.7 Annex C)
    │       └── StoreRefused          a C-STORE status (PS3.4 Table B.2-1)
    │           └── SignatureRejected 0xC000
    ├── InvalidInput                  the other side's bytes are not what the standard says
    │   ├── InvalidAuditMessage
    │   ├── InvalidDataSet
    │   └── InvalidCertificate
    ├── PeerRefused                   the other side said no to us
    └── ServiceUnavailable            directory, repository, disk: nothing was decided
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class SecureNodeError(Exception):
    """Base of every error this package raises on purpose."""

    def __reduce__(self) -> tuple[Callable[..., SecureNodeError], tuple[Any, ...]]:
        # Pickle would hand the finished text to a constructor that makes texts of its parts.
        return _again, (type(self), self.args, self.__dict__)


def _again(
    kind: type[SecureNodeError], args: tuple[Any, ...], attributes: dict[str, Any]
) -> SecureNodeError:
    """Return an error that came from another process."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class ConfigurationError(SecureNodeError):
    """A setting is wrong; raised before the node listens.

    Parameters
    ----------
    message : str
        What was found and what was wanted.
    where : str, optional
        File and key, e.g. ``node.toml: listener[0].profile``.
    """

    def __init__(self, message: str, where: str | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where


class MissingExtra(ConfigurationError):
    """A feature was asked for whose optional package is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f'{feature} needs an optional package: pip install "dicom-secure-node[{extra}]"'
        )
        self.extra = extra


class Refused(SecureNodeError):
    """The node said no, on purpose.

    Attributes
    ----------
    reason : str
        Why, in words fit for the log and the audit trail.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class HandshakeRefused(Refused):
    """The transport was refused; no association exists.

    Attributes
    ----------
    kind : str
        A stable word for the cause, one of `KINDS`.
    """

    KINDS = (
        "expired",
        "not yet valid",
        "revoked",
        "unknown issuer",
        "self-signed",
        "no certificate",
        "bad signature",
        "wrong key",
        "wrong usage",
        "wrong name",
        "weak key",
        "crl expired",
        "crl missing",
        "bad certificate",
        "protocol version",
        "no shared suite",
        "no shared protocol",
        "time-out",
        "not TLS",
        "unexpected TLS",
        "not DICOM",
        "closed by peer",
        "refused by peer",
        "limit reached",
        "tls failure",
    )

    def __init__(self, kind: str, reason: str) -> None:
        assert kind in self.KINDS, kind
        super().__init__(f"{kind}: {reason}" if reason else kind)
        self.kind = kind


class AssociationRefused(Refused):
    """An A-ASSOCIATE-RQ is refused (PS3.8 Table 9-21).

    Attributes
    ----------
    result : int
        1 rejected-permanent, 2 rejected-transient.
    source : int
        1 service-user, 2 service-provider (ACSE), 3 service-provider (presentation).
    diagnostic : int
        Reason, its meaning depends on `source`.
    """

    result = 1
    source = 1
    diagnostic = 1

    def __init__(
        self,
        reason: str,
        *,
        result: int | None = None,
        source: int | None = None,
        diagnostic: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.result = type(self).result if result is None else result
        self.source = type(self).source if source is None else source
        self.diagnostic = type(self).diagnostic if diagnostic is None else diagnostic


class IdentityRefused(AssociationRefused):
    """The user identity was missing or did not verify (PS3.7 D.3.3.7: 1, 2, 1)."""

    source = 2


class AccessRefused(AssociationRefused):
    """The access policy, or the binding of certificate and AE title, says no."""


class LimitReached(AssociationRefused):
    """The node is at a limit of its own (2, 3, 2: local-limit-exceeded)."""

    result = 2
    source = 3
    diagnostic = 2


class OperationRefused(Refused):
    """A DIMSE request on an accepted association is refused.

    Attributes
    ----------
    status : int
        The DIMSE status the peer gets; 0x0124 is "not authorised" (PS3.7 C.5.25).
    """

    status = 0x0124

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = type(self).status if status is None else status


class StoreRefused(OperationRefused):
    """A C-STORE is refused; by default 0xC000, cannot understand (PS3.4 Table B.2-1)."""

    status = 0xC000


class SignatureRejected(StoreRefused):
    """The digital signatures of an instance are not what the policy asks for (PS3.15 Annex C)."""


class InvalidInput(SecureNodeError):
    """Bytes from elsewhere are not what the standard says.

    Parameters
    ----------
    found, wanted : str
        What was there and what should have been; never the secret or identifying value.
    where : str, optional
        File, element tag, XPath or byte position.
    clause : str, optional
        The section that says so, e.g. ``PS3.15 A.5.1.1``.
    """

    def __init__(self, found: str, wanted: str, where: str = "", clause: str = "") -> None:
        head = f"{where}: " if where else ""
        tail = f" ({clause})" if clause else ""
        super().__init__(f"{head}found {found}, wanted {wanted}{tail}")
        self.found = found
        self.wanted = wanted
        self.where = where
        self.clause = clause


class InvalidAuditMessage(InvalidInput):
    """Not an audit message of PS3.15 A.5."""


class InvalidDataSet(InvalidInput):
    """An encoded data set cannot be walked (PS3.5)."""


class InvalidCertificate(InvalidInput):
    """A certificate, key or CRL file cannot be used."""


class PeerRefused(SecureNodeError):
    """The other side refused us: an A-ASSOCIATE-RJ, a failure status, a TLS alert."""


class ServiceUnavailable(SecureNodeError):
    """Something we need is away and nothing was decided.

    Attributes
    ----------
    service : str
        Which one: ``audit repository``, ``disk``, ``peer 10.0.0.5:11112`` ...
    """

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(f"{service}: {reason}")
        self.service = service
        self.reason = reason
