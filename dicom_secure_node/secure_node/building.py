"""From the tables of a configuration to the parts of a node."""

from __future__ import annotations

import contextlib
import importlib
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from dicom_secure_node import config
from dicom_secure_node.archive import Archive
from dicom_secure_node.archive.layout import QUARANTINE
from dicom_secure_node.audit.transport import Repository
from dicom_secure_node.config import PLAIN
from dicom_secure_node.errors import ConfigurationError, InvalidCertificate
from dicom_secure_node.node.limits import Limits
from dicom_secure_node.node.plugin import Plugin
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.files import passphrase_source, read_certificates
from dicom_secure_node.pki.paths import PathValidator
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.secure_node import identities, watching
from dicom_secure_node.signatures.verify import Verifier
from dicom_secure_node.tls.context import ClientContext, ServerContext
from dicom_secure_node.tls.profiles import profile_named
from dicom_secure_node.tls.reload import Reloading
from dicom_secure_node.tls.socket import TLSSocket

ENTRY_POINTS = "dicom_secure_node.plugins"
Ask = Callable[[str], bytes]
OURS = ("certificate", "identity", "access", "signatures", "storage", "audit")


def server_context(table: config.Listener, ask: Ask | None = None) -> ServerContext:
    """Return the TLS context of a listener, from its files as they are now.

    Parameters
    ----------
    table : Listener
    ask : callable, optional
        Asks somebody for the passphrase of a listener's keys, where no file holds it.

    Raises
    ------
    ConfigurationError
        What is wrong with them.
    """
    profile = profile_named(table.profile, allow_retired=table.allow_retired)
    if table.groups:
        profile = replace(profile, groups=table.groups)
    passphrase = _passphrase(table, ask)
    with _usable(table.label):
        return ServerContext(
            profile,
            [load_credential_base(base, passphrase) for base in table.credential],
            load_trust(table.trust, table.crl),
            client_certificate=table.client_certificate,
            observe=table.mode == "observe",
        )


@contextlib.contextmanager
def _usable(label: str) -> Iterator[None]:
    """Call a file that holds something else what it is here: a wrong setting."""
    try:
        yield
    except (InvalidCertificate, OSError) as exc:
        raise ConfigurationError(str(exc), label) from exc


def check(tables: config.NodeConfig) -> None:
    """Make what a node would make of its configuration, and let it go; nothing is written.

    Raises
    ------
    ConfigurationError
        What would keep the node from starting.
    """
    for table in tables.listener:
        if table.profile != PLAIN:
            server_context(table)
    for one in tables.audit.repository:
        repository(one)
    if "identity" in tables.node.plugins:
        identities.check(tables)
    if tables.signatures.looks:
        signature_verifier(tables.signatures)
    if tables.metrics.port:
        watching.server_class()
    for name in tables.node.plugins:
        if name not in OURS:
            plugin_named(name)


def files_of(table: config.Listener) -> list[Path]:
    """Return the files a listener's TLS context is made of."""
    return [*_halves(table.credential), *table.trust, *table.crl]


def _halves(bases: Sequence[Path]) -> list[Path]:
    return [base.with_name(base.name + end) for base in bases for end in (".crt", ".key")]


def _passphrase(table: config.Listener, ask: Ask | None) -> Callable[[], bytes] | None:
    """Return what gives the passphrase of the keys; it is called only if they have one."""
    asking = None if ask is None else partial(ask, table.label)
    return passphrase_source(table.passphrase_file, asking)


def repository(table: config.AuditRepository) -> Repository:
    """Return where audit messages go (PS3.15 A.6, A.7)."""
    context = None
    if table.transport == "tls":
        files = [*_halves(table.credential), *table.trust]
        context = _Latest(Reloading(partial(_repository_context, table), files, _keep_last_good))
    return Repository(
        table.label,
        table.host,
        table.port,
        table.transport,
        context=context,
        server_name=table.server_name or None,
        message_id=table.message_id,
        identifier=table.identifier,
    )


def _repository_context(table: config.AuditRepository) -> ClientContext:
    profile = replace(profile_named(table.profile), alpn=b"")  # "dicom" is not what is spoken
    with _usable(table.label):
        credential = load_credential_base(table.credential[0]) if table.credential else None
        return ClientContext(profile, credential, load_trust(table.trust))


class _Latest:
    """A client context made of files, as they are at each new connection."""

    def __init__(self, reloading: Reloading[ClientContext]) -> None:
        self._reloading = reloading

    def wrap_socket(
        self, sock: socket.socket, server_side: bool = False, *, server_hostname: str | None = None
    ) -> TLSSocket:
        return self._reloading.current.wrap_socket(sock, server_side, server_hostname)


def _keep_last_good(_: Exception) -> None:
    """Do nothing more: `Reloading` logs it, and audit trouble makes no audit messages."""


def signature_verifier(table: config.Signatures) -> Verifier:
    """Return what verifies digital signatures, from its files as they are now.

    Raises
    ------
    ConfigurationError
        A file cannot be used, or the optional packages are missing.
    """
    with _usable("signatures"):
        trust = load_trust(table.trust, table.crl)
        between = [one for path in table.intermediates for one in read_certificates(path)]
        signers = PathValidator(trust, intermediates=between, fetch=table.fetch)
        authorities = None
        if table.timestamp_trust:
            authorities = PathValidator(
                load_trust(table.timestamp_trust), intermediates=between, fetch=table.fetch
            )
    return Verifier(signers, authorities)


def signature_files(table: config.Signatures) -> list[Path]:
    """Return the files the verifier of signatures is made of."""
    return [*table.trust, *table.crl, *table.intermediates, *table.timestamp_trust]


def plugin_named(name: str) -> Plugin:
    """Return a third party's plug-in: an entry point, or ``module:Class``."""
    for point in entry_points(group=ENTRY_POINTS, name=name):
        return _made(point.load(), name)
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigurationError(
            f"no plug-in {name!r}: neither ours ({', '.join(OURS)}), nor an entry point in "
            f"{ENTRY_POINTS}, nor module:Class",
            "node.plugins",
        )
    try:
        return _made(getattr(importlib.import_module(module), attribute), name)
    except (ImportError, AttributeError) as exc:
        raise ConfigurationError(f"plug-in {name!r}: {exc}", "node.plugins") from exc


def _made(factory: Any, name: str) -> Plugin:
    plugin = factory()
    if not isinstance(plugin, Plugin):
        raise ConfigurationError(f"plug-in {name!r} does not derive from Plugin", "node.plugins")
    return plugin


def client_context(
    table: config.Listener, ask: Ask | None = None, check_name: bool = True
) -> ClientContext | None:
    """Return the context to call others with, by a listener's settings; None for plain ones."""
    if table.profile == PLAIN:
        return None
    profile = profile_named(table.profile, allow_retired=table.allow_retired)
    with _usable(table.label):
        credential = load_credential_base(table.credential[0], _passphrase(table, ask))
        trust = load_trust(table.trust, table.crl)
        return ClientContext(profile, credential, trust, check_name)


def open_archives(tables: config.NodeConfig) -> tuple[Archive, ...]:
    """Open the archive and, where signatures may send instances there, the quarantine behind it.

    Raises
    ------
    ServiceUnavailable
        A folder or index cannot be used.
    """
    if "storage" not in tables.node.plugins:
        return ()
    table = tables.archive
    archive = Archive(table.path, index=table.index, duplicates=table.duplicates)
    if tables.signatures.refused != "quarantine":
        return (archive,)
    try:
        return archive, Archive(archive.folder / QUARANTINE, duplicates="version")
    except BaseException:
        archive.close()
        raise


def limits_of(table: config.Limits) -> Limits:
    """Return a node's limits as the wire wants them."""
    return Limits(
        connections=table.connections,
        connections_per_address=table.connections_per_address,
        associations=table.associations,
        handshake_seconds=table.handshake_seconds,
        request_seconds=table.request_seconds,
        idle_seconds=table.idle_seconds,
        pdu_seconds=table.pdu_seconds,
        pdu_length=table.pdu_length,
        instance_length=table.instance_limit,
    )
