"""The tables of a configuration file: one frozen dataclass each, with its defaults.

They check their own values, so that a program that builds a `NodeConfig` itself gets the same
errors as one that loads a file. Defaults are the safe ones. Nothing here looks at a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dicom_secure_node.audit.suppress import SuppressRule
from dicom_secure_node.config.identity import Demanded, Identity, TypeName, demand_of
from dicom_secure_node.config.metrics import Metrics
from dicom_secure_node.config.signatures import Signatures
from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.access import AccessRule
from dicom_secure_node.identity.certificate_binding import ANYBODY, Binding
from dicom_secure_node.identity.policy import IdentityPolicy
from dicom_secure_node.tls.profiles import profile_named

PLAIN = "plain"  # the profile name of a listener without TLS

# PS3.5 6.2, VR AE: 1 to 16 characters, no control character, no backslash, not only spaces.
_AE_TITLE = re.compile(r"(?! +\Z)[ -\[\]-~]{1,16}")
# PS3.5 9.1: at most 64 characters. Or the keyword of a SOP class, e.g. CTImageStorage.
_SOP_CLASS = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)+|[A-Z][A-Za-z0-9]+")


def _demand(good: bool, key: str, found: object, wanted: str) -> None:
    if not good:
        raise ConfigurationError(f"found {found!r}, wanted {wanted}", key)


def _within(table: object, low: float, high: float, *keys: str) -> None:
    for key in keys:
        found = getattr(table, key)
        _demand(low <= found <= high, key, found, f"{low:,} to {high:,}")


def _demand_ae_title(key: str, found: str) -> None:
    wanted = "an AE title: 1 to 16 printable ASCII characters, no backslash (PS3.5 6.2)"
    _demand(bool(_AE_TITLE.fullmatch(found)), key, found, wanted)


def _demand_sop_classes(key: str, found: Iterable[str]) -> None:
    for name in found:
        wanted = "a SOP Class UID or its keyword, e.g. CTImageStorage"
        _demand(bool(_SOP_CLASS.fullmatch(name)), key, name, wanted)


def _demand_profile(name: str, *, allow_retired: bool = False) -> None:
    try:
        profile_named(name, allow_retired=allow_retired)
    except ConfigurationError as exc:
        raise ConfigurationError(str(exc), "profile") from exc


@dataclass(frozen=True)
class Node:
    """``[node]``: who we are and what happens to an association, in order.

    Attributes
    ----------
    ae_title : str
        Our AE title.
    plugins : tuple of str
        In the order they are asked: a name of ours, of the entry points
        ``dicom_secure_node.plugins``, or of those a program hands over.
    workers : int
        Processes that ``serve`` shares the work among; with more than one, another listens.
    """

    ae_title: str = "SECURENODE"
    plugins: tuple[str, ...] = (
        "certificate",
        "identity",
        "access",
        "signatures",
        "storage",
        "audit",
    )
    workers: int = 1

    def __post_init__(self) -> None:
        _demand_ae_title("ae_title", self.ae_title)
        for name in self.plugins:
            once = bool(name.strip()) and self.plugins.count(name) == 1
            _demand(once, "plugins", name, "each name once, none of them empty")
        _within(self, 1, 64, "workers")


@dataclass(frozen=True)
class Limits:
    """``[limits]``: what one peer, or all of them, may cost us.

    Attributes
    ----------
    connections, connections_per_address : int
        TCP connections open at once.
    associations : int
        Associations open at once, of all listeners; 0: four fifths of `connections`, so that
        there are connections left to say no on.
    handshake_seconds, request_seconds, idle_seconds : float
        Deadline of the TLS handshake, of the A-ASSOCIATE-RQ, and of silence in between.
    pdu_seconds : float
        For one PDU on an association to arrive whole, or to be taken by a peer.
    pdu_length : int
        Maximum PDU length we announce, bytes.
    instance_limit : int
        Largest data set we take, bytes.
    stop_seconds : float
        How long a stop waits for associations to end by themselves.
    """

    connections: int = 200
    connections_per_address: int = 50
    associations: int = 0
    handshake_seconds: float = 10.0
    request_seconds: float = 10.0
    idle_seconds: float = 300.0
    pdu_seconds: float = 60.0
    pdu_length: int = 1_048_576
    instance_limit: int = 8 * 1024**3
    stop_seconds: float = 30.0

    def __post_init__(self) -> None:
        _within(self, 1, 100_000, "connections", "connections_per_address")
        _within(self, 0, self.connections, "associations")
        _within(self, 0.1, 86_400, "handshake_seconds", "request_seconds", "idle_seconds")
        _within(self, 0.1, 86_400, "pdu_seconds")
        _within(self, 0, 86_400, "stop_seconds")
        _within(self, 4_096, 16 * 1024**2, "pdu_length")
        _within(self, 1, 2**63 - 1, "instance_limit")


@dataclass(frozen=True)
class Listener:
    """``[[listener]]``: an address, and how a peer has to come in.

    Attributes
    ----------
    name : str
        What rules and logs call it; ``host:port`` when left out, see `label`.
    host, port : str, int
        Where to listen; port 0 takes a free one. ``0.0.0.0`` is every IPv4 address.
    profile : str
        TLS profile by section (``B.12``) or short name (``8996``), or ``plain``.
    client_certificate : str
        ``require``, ``verify`` (asked for, verified if given) or ``ignore`` (not asked for).
    credential : tuple of Path
        Each without its ending: ``pki/node`` is ``pki/node.crt`` and ``pki/node.key``.
    passphrase_file : Path, optional
        First line: the passphrase of the keys.
    trust, crl : tuple of Path
        Anchors and revocation lists. With a list given, every certificate is checked against it.
    allow_retired : bool
        Whether `profile` may be one the standard has retired.
    groups : tuple of str
        Key exchange groups in place of the profile's.
    identity : str, or mapping of str to str
        ``not-supported``, ``supports`` or ``required`` (PS3.15 B.4 to B.7), for all types or by
        type; a type left out is not supported.
    identity_for : mapping of str to str, or to mappings of str to str
        The same for single calling AE titles.
    identity_types : tuple of str
        Types taken here in place of those of ``[identity]``, where one word is for all.
    mode : str
        ``enforce``, or ``observe``: record what would be refused, and serve it.
    """

    name: str = ""
    host: str = "127.0.0.1"
    port: int = 2762  # dicom-tls
    profile: str = "8996"
    client_certificate: Literal["require", "verify", "ignore"] = "require"
    credential: tuple[Path, ...] = (Path("pki/node"), Path("pki/node-ec"))
    passphrase_file: Path | None = None
    trust: tuple[Path, ...] = (Path("pki/ca.crt"),)
    crl: tuple[Path, ...] = ()
    allow_retired: bool = False
    groups: tuple[str, ...] = ()
    identity: Demanded = "supports"
    identity_for: Mapping[str, Demanded] = field(default_factory=dict)
    identity_types: tuple[TypeName, ...] = ()
    mode: Literal["enforce", "observe"] = "enforce"

    def __post_init__(self) -> None:
        _within(self, 0, 65_535, "port")
        _demand(bool(self.host.strip()), "host", self.host, "an address or a host name")
        for title in self.identity_for:
            _demand_ae_title("identity_for", title)
        if self.profile == PLAIN:
            return
        _demand_profile(self.profile, allow_retired=self.allow_retired)
        wanted = f"a key and certificate, or profile = {PLAIN!r}"
        _demand(bool(self.credential), "credential", [], wanted)
        asked = self.client_certificate != "ignore"
        _demand(bool(self.trust) or not asked, "trust", [], "whom to trust for client certificates")

    @property
    def label(self) -> str:
        """`name`, or ``host:port`` for a listener without one."""
        return self.name or f"{self.host}:{self.port}"

    def identity_policy(self, table: Identity) -> IdentityPolicy:
        """Return the same for the identity unit; `table` has the types where we name none."""
        types = self.identity_types or table.types
        overrides = {ae: demand_of(found, types) for ae, found in self.identity_for.items()}
        return IdentityPolicy(demand_of(self.identity, types), overrides)


@dataclass(frozen=True)
class Services:
    """``[services]``: what can be asked of us.

    Attributes
    ----------
    storage : tuple of str
        ``all``: every storage SOP class of the standard; or UIDs and keywords.
    private_sop_classes : tuple of str
        UIDs of private SOP classes that are stored as well.
    """

    storage: tuple[str, ...] = ("all",)
    private_sop_classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.storage != ("all",):
            _demand_sop_classes("storage", self.storage)
        _demand_sop_classes("private_sop_classes", self.private_sop_classes)


@dataclass(frozen=True)
class Access:
    """``[[access.rule]]``: who may do what; with a rule given, everything else is refused."""

    rule: tuple[AccessRule, ...] = ()


@dataclass(frozen=True)
class CertificateBinding:
    """``[[certificate.binding]]``: an AE title and the certificate its user must hold.

    Attributes
    ----------
    calling_ae : str
        The title, or ``*`` for every title without a binding of its own.
    subject, san, fingerprint : str
        RFC 4514 name; ``dns:``, ``uri:`` or ``ip:`` name; SHA-256 in hex. All given must match.
    """

    calling_ae: str
    subject: str = ""
    san: str = ""
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.calling_ae != ANYBODY:
            _demand_ae_title("calling_ae", self.calling_ae)
        _ = self.binding

    @property
    def binding(self) -> Binding:
        """The same for the identity unit."""
        return Binding.of(
            self.calling_ae, subject=self.subject, san=self.san, fingerprint=self.fingerprint
        )


@dataclass(frozen=True)
class Certificate:
    """``[certificate]``: bindings of AE titles to certificates."""

    binding: tuple[CertificateBinding, ...] = ()


@dataclass(frozen=True)
class Archive:
    """``[archive]``: where instances are kept.

    Attributes
    ----------
    path : Path
        Folder of the instances.
    index : Path, optional
        SQLite file, also as ``sqlite:///PATH``; inside `path` when left out.
    duplicates : str
        An instance UID we hold: ``same-only`` takes the same bytes again, ``refuse`` nothing,
        ``version`` keeps both.
    """

    path: Path = Path("archive")
    index: Path | None = None
    duplicates: Literal["same-only", "refuse", "version"] = "same-only"


@dataclass(frozen=True)
class AuditRepository:
    """``[[audit.repository]]``: who receives our audit messages (PS3.15 A.6, A.7).

    Attributes
    ----------
    name : str
        What logs call it; ``host:port`` when left out, see `label`.
    host, port : str, int
        Where it listens; 6514 is syslog over TLS (RFC 5425).
    transport : str
        ``tls`` or ``udp``. UDP sends names of patients in clear, and may lose them.
    trust : tuple of Path
        Anchors for its certificate.
    credential : tuple of Path
        At most one, without its ending, as for a listener.
    message_id : str
        MSGID of the syslog header.
    identifier : str
        How a message that comes twice is known again: ``sequence``, ``name@number`` with a
        private enterprise number, or ``none``.
    server_name : str
        The name its certificate must hold; `host` when left out.
    profile : str
        TLS profile.
    """

    host: str
    port: int = 6514
    name: str = ""
    transport: Literal["tls", "udp"] = "tls"
    trust: tuple[Path, ...] = ()
    credential: tuple[Path, ...] = ()
    message_id: Literal["DICOM+RFC3881", "IHE+RFC-3881"] = "DICOM+RFC3881"
    identifier: str = "sequence"
    server_name: str = ""
    profile: str = "8996"

    def __post_init__(self) -> None:
        _within(self, 1, 65_535, "port")
        _demand(bool(self.host.strip()), "host", self.host, "an address or a host name")
        _demand(len(self.credential) <= 1, "credential", len(self.credential), "one at most")
        if self.transport == "tls":
            _demand_profile(self.profile)
            _demand(bool(self.trust), "trust", [], "whom to trust for its certificate")
        else:
            unused = [*self.trust, *self.credential]
            _demand(not unused, "transport", "udp", "tls, since trust or credential is given")

    @property
    def label(self) -> str:
        """`name`, or ``host:port`` for a repository without one."""
        return self.name or f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Audit:
    """``[audit]``: our own audit trail, and who gets a copy.

    Attributes
    ----------
    path : Path
        Folder of the trail.
    source_id, site_id : str
        AuditSourceID and AuditEnterpriseSiteID; the host name, and nothing, when left out.
    source_type : str
        AuditSourceTypeCode (PS3.15 A.5.1.2.1).
    spool_limit : int
        Messages that may wait for a repository that is away.
    when_full : str
        ``refuse``: no new associations until there is room; ``drop-oldest``: lose messages.
    keep_days : int
        How long our own copy is kept; 0: for ever.
    repository : tuple of AuditRepository
    suppress : tuple of SuppressRule
        What is not kept at all.
    """

    path: Path = Path("audit")
    source_id: str = ""
    site_id: str = ""
    source_type: Literal["1", "2", "3", "4", "5", "6", "7", "8", "9"] = "4"
    spool_limit: int = 100_000
    when_full: Literal["refuse", "drop-oldest"] = "refuse"
    keep_days: int = 0
    repository: tuple[AuditRepository, ...] = ()
    suppress: tuple[SuppressRule, ...] = ()

    def __post_init__(self) -> None:
        _within(self, 1, 100_000_000, "spool_limit")
        _within(self, 0, 36_500, "keep_days")


@dataclass(frozen=True)
class NodeConfig:
    """A whole configuration file; one attribute for each table."""

    listener: tuple[Listener, ...]
    node: Node = Node()
    limits: Limits = Limits()
    services: Services = Services()
    identity: Identity = field(default_factory=Identity)
    access: Access = Access()
    certificate: Certificate = Certificate()
    signatures: Signatures = field(default_factory=Signatures)
    archive: Archive = Archive()
    audit: Audit = Audit()
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        _demand(bool(self.listener), "listener", [], "at least one [[listener]]")
        for plugin, key in self._settings_with_a_gate():
            wanted = f"{plugin!r} among them: nothing else looks at {key}"
            _demand(plugin in self.node.plugins, "node", list(self.node.plugins), wanted)
        if self.signatures.looks and "storage" in self.node.plugins:
            # Else an instance would be kept before anybody looked.
            order = list(self.node.plugins)
            first = order.index("signatures") < order.index("storage")
            _demand(first, "node", order, "'signatures' before 'storage'")
        for title in self.signatures.on_store_for:
            _demand_ae_title("signatures", title)
        labels = [listener.label for listener in self.listener if listener.port or listener.name]
        for label in labels:
            _demand(labels.count(label) == 1, "listener", label, "each name and address once")

    def _settings_with_a_gate(self) -> Iterable[tuple[str, str]]:
        """Yield plug-in and key of each setting that would mean nothing without the plug-in."""
        if self.access.rule:
            yield "access", "[[access.rule]]"
        if self.certificate.binding:
            yield "certificate", "[[certificate.binding]]"
        if self.signatures.looks:
            yield "signatures", "[signatures] on_store"
            if self.signatures.refused == "quarantine":
                yield "storage", 'refused = "quarantine"'
        if self.audit.repository:
            yield "audit", "[[audit.repository]]"
        for one in self.listener:
            if any(demand.required for demand in one.identity_policy(self.identity).demands):
                yield "identity", 'identity = "required"'
