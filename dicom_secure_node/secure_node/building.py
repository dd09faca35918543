"""From the tables of a configuration to the parts of a node."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from dicom_secure_node import config
from dicom_secure_node.audit.transport import Repository
from dicom_secure_node.config import PLAIN
from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.node.limits import Limits
from dicom_secure_node.node.plugin import Plugin
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.tls.context import ClientContext, ServerContext
from dicom_secure_node.tls.profiles import profile_named

ENTRY_POINTS = "dicom_secure_node.plugins"


def server_context(table: config.Listener) -> ServerContext:
    """Return the TLS context of a listener, from its files as they are now.

    Raises
    ------
    ConfigurationError, InvalidCertificate
        What is wrong with them.
    """
    profile = profile_named(table.profile, allow_retired=table.allow_retired)
    if table.groups:
        profile = replace(profile, groups=table.groups)
    passphrase = _passphrase(table)
    credentials = [load_credential_base(base, passphrase) for base in table.credential]
    return ServerContext(
        profile,
        credentials,
        load_trust(table.trust, table.crl),
        client_certificate=table.client_certificate,
        observe=table.mode == "observe",
    )


def files_of(table: config.Listener) -> list[Path]:
    pairs = [
        base.with_name(base.name + ending)
        for base in table.credential
        for ending in (".crt", ".key")
    ]
    return [*pairs, *table.trust, *table.crl]


def _passphrase(table: config.Listener) -> Callable[[], bytes] | None:
    file = table.passphrase_file
    return None if file is None else (lambda: file.read_bytes().split(b"\n", 1)[0].rstrip(b"\r"))


def repository(table: config.AuditRepository) -> Repository:
    context = None
    if table.transport == "tls":
        credential = load_credential_base(table.credential[0]) if table.credential else None
        context = ClientContext(
            replace(profile_named(table.profile), alpn=b""), credential, load_trust(table.trust)
        )
    return Repository(
        table.label,
        table.host,
        table.port,
        table.transport,
        context=context,
        server_name=table.server_name or None,
        message_id=table.message_id,
    )


def plugin_named(name: str) -> Plugin:
    """Return a third party's plug-in: an entry point, or ``module:Class``."""
    for point in entry_points(group=ENTRY_POINTS, name=name):
        return _made(point.load(), name)
    module, colon, attribute = name.partition(":")
    if not colon:
        known = "certificate, identity, access, storage, audit"
        raise ConfigurationError(
            f"no plug-in {name!r}: neither ours ({known}), nor an entry point in "
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


def client_context(table: config.Listener) -> ClientContext | None:
    """Return the context to call others with, by a listener's settings; None for plain ones."""
    if table.profile == PLAIN:
        return None
    profile = profile_named(table.profile, allow_retired=table.allow_retired)
    credential = load_credential_base(table.credential[0], _passphrase(table))
    return ClientContext(profile, credential, load_trust(table.trust, table.crl))


def limits_of(table: config.Limits) -> Limits:
    """Return a node's limits as the wire wants them."""
    return Limits(
        connections=table.connections,
        connections_per_address=table.connections_per_address,
        handshake_seconds=table.handshake_seconds,
        request_seconds=table.request_seconds,
        idle_seconds=table.idle_seconds,
        pdu_length=table.pdu_length,
        instance_length=table.instance_limit,
    )
