"""An audit record repository from its settings: the parts of `audit.collecting`, and TLS."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial

from dicom_secure_node.audit.collecting.collector import Collector
from dicom_secure_node.audit.collecting.settings import Collect
from dicom_secure_node.errors import ConfigurationError, InvalidCertificate
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.tls.context import ServerContext
from dicom_secure_node.tls.profiles import profile_named
from dicom_secure_node.tls.reload import Reloading

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollectFile:
    """A repository's file: the one table ``[collect]``."""

    collect: Collect


def collector(settings: Collect) -> Collector:
    """Return a repository that listens and is not started yet.

    Certificates, keys, anchors and revocation lists are read again when they change.

    Raises
    ------
    ConfigurationError
        A file cannot be used.
    ServiceUnavailable
        A port is taken, or the folder cannot be used.
    """
    halves = [base.with_name(base.name + end) for base in settings.credential for end in _ENDS]
    files = [*halves, *settings.trust, *settings.crl]
    context = Reloading(partial(_context, settings), files, _keep_last_good)
    return Collector(settings, lambda: context.current)


_ENDS = (".crt", ".key")


def _context(settings: Collect) -> ServerContext:
    profile = replace(profile_named(settings.profile), alpn=b"")  # "dicom" is not what is spoken
    try:
        return ServerContext(
            profile,
            [load_credential_base(base) for base in settings.credential],
            load_trust(settings.trust, settings.crl),
            client_certificate=settings.client_certificate,
            handshake_seconds=settings.handshake_seconds,
        )
    except (InvalidCertificate, OSError) as exc:
        raise ConfigurationError(str(exc), "collect") from exc


def _keep_last_good(_: Exception) -> None:
    """Do nothing more: `Reloading` logs it."""
