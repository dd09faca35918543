"""A node built from its configuration: for the ``serve`` command, and for your own program.

In a program that has an `AE` and handlers of its own::

    from pynetdicom import AE, evt
    from dicom_secure_node import SecureNode

    node = SecureNode("node.toml")
    node.start_server(ae, ("", 2762), evt_handlers=[(evt.EVT_C_STORE, handle_store)])

This is the one place that joins the units: it makes TLS contexts of profiles, credentials and
trust, plug-ins of identity, access, archive and audit, and hands them to the host.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association

from dicom_secure_node import config as configuration
from dicom_secure_node.archive import Archive
from dicom_secure_node.config import PLAIN, NodeConfig
from dicom_secure_node.errors import ConfigurationError
from dicom_secure_node.identity.access import AccessPolicy
from dicom_secure_node.identity.certificate_binding import CertificateBindings
from dicom_secure_node.identity.claims import Backend, Claim
from dicom_secure_node.node import scu, server
from dicom_secure_node.node.host import PluginHost
from dicom_secure_node.node.metrics import Metrics
from dicom_secure_node.node.passed import PassedServer, start_passed
from dicom_secure_node.node.plugin import Plugin
from dicom_secure_node.node.plugins.access import AccessPlugin
from dicom_secure_node.node.plugins.audit import AuditPlugin
from dicom_secure_node.node.plugins.certificate import CertificatePlugin
from dicom_secure_node.node.plugins.identity import IdentityPlugin
from dicom_secure_node.node.plugins.metrics import MetricsPlugin
from dicom_secure_node.node.plugins.signatures import SignaturePlugin
from dicom_secure_node.node.plugins.storage import StoragePlugin
from dicom_secure_node.secure_node import building
from dicom_secure_node.secure_node.identities import IdentityBackends, identity_policies
from dicom_secure_node.secure_node.measuring import metrics_of
from dicom_secure_node.secure_node.reporting import SummingUp
from dicom_secure_node.secure_node.shared import NodeState, Shared
from dicom_secure_node.signatures.verify import Verifier
from dicom_secure_node.tls.reload import Reloading

logger = logging.getLogger(__name__)


class SecureNode:
    """Everything a node needs, by one configuration.

    Parameters
    ----------
    config : NodeConfig, Path or str
        The tables, or the TOML file that holds them.
    plugins : mapping of str to Plugin, optional
        Plug-ins of your own, by the name ``node.plugins`` lists them under.
    backends : sequence of Backend, optional
        What verifies user identities, before the node's own users file is asked.
    ask_passphrase : callable, optional
        Given a listener's name, returns the passphrase of its keys; asked where they have
        one and no file holds it.
    shared : Shared, optional
        The audit trail and whatever else a node has once, where another process has it.

    Attributes
    ----------
    audit : NodeAudit
        Where your program reports events of its own; `trail` is what keeps them.
    metrics : Metrics
        What the node has counted since it was made.

    Raises
    ------
    ConfigurationError
        Something in it is wrong; nothing listens yet.
    ServiceUnavailable
        The archive or the audit store cannot be opened.
    """

    def __init__(
        self,
        config: NodeConfig | Path | str,
        plugins: Mapping[str, Plugin] | None = None,
        backends: Sequence[Backend] = (),
        ask_passphrase: building.Ask | None = None,
        shared: Shared | None = None,
    ) -> None:
        self.config = config if isinstance(config, NodeConfig) else configuration.load(Path(config))
        self._servers: list[server.SecureServer] = []
        self._ask_passphrase = ask_passphrase
        self._stopping = threading.Event()
        self._listeners = {one.label: self._listener(one) for one in self.config.listener}
        self._shared = NodeState(self.config) if shared is None else shared
        self.trail = self._shared.trail
        self.audit = self._shared.audit
        self._archives: tuple[Archive, ...] = ()
        self.metrics = (
            metrics_of(self.config, self.trail, self._shared.slots.__len__)
            if self._shared.owner
            else Metrics()  # the owner looks up the rest
        )
        self._identities: IdentityBackends | None = None
        try:
            self._archives = building.open_archives(self.config)
            self._audit = AuditPlugin(
                self.audit,
                self.config.node.ae_title,
                self._shared.limiter,
                self._archives,
                self.audit.remark,
            )
            self._identities = IdentityBackends(
                self.config, backends, self._audit.locked, self._shared.identity
            )
            self._plugins = self._build_plugins(plugins or {})
        except BaseException:
            self._close()
            raise
        self._started = False
        self._summing_up: SummingUp | None = None

    # -- running ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the audit trail; called by the first `start_server`."""
        if self._started:
            return
        self._started = True
        if not self._shared.owner:
            return  # whoever owns the trail starts it, and says so in it
        if self.config.node.workers > 1:
            logger.info("workers: all is done in this process; only the command serve has others")
        self._shared.start()
        self._audit.started()
        self._summing_up = SummingUp(self._audit.sum_up)

    def start_server(
        self,
        ae: Any,
        address: tuple[str, int],
        block: bool = True,
        *,
        evt_handlers: Sequence[tuple[Any, ...]] | None = None,
        ae_title: str | None = None,
        contexts: Any = None,
        listener: str | None = None,
    ) -> server.SecureServer | None:
        """Start `ae`'s association server under this node's rules.

        Takes what pynetdicom's ``AE.start_server`` takes. Your own handler of an
        intervention event (EVT_C_STORE, EVT_USER_ID, EVT_C_FIND ...) runs last, after every
        gate has agreed, and gets pynetdicom's own `Event`; notification handlers are bound
        as they are.

        Parameters
        ----------
        ae : ApplicationEntity
        address : (str, int)
            Where to listen.
        block : bool
            As in pynetdicom: True serves until interrupted, False returns the server.
        evt_handlers : sequence of tuple
            ``(event, handler)`` or ``(event, handler, args)``.
        ae_title, contexts : optional
            As in pynetdicom.
        listener : str, optional
            Which ``[[listener]]`` table rules here; the first one by default.
        """
        application, notifications = _split_handlers(evt_handlers or ())
        self.start()
        started = server.start(
            ae,
            address,
            self._listeners[self._label(listener)],
            self._host(application),
            slots=self._shared.slots,
            evt_handlers=notifications,
            ae_title=ae_title,
            contexts=contexts,
        )
        self._servers.append(started)
        if not block:
            return started
        try:
            self._stopping.wait()
        except KeyboardInterrupt:
            self.stop()
        return None

    def listen(self, ae: Any) -> list[server.SecureServer]:
        """Start every configured listener for `ae`, the node's own application entity.

        Raises
        ------
        OSError
            An address is in use, or not ours; none of them is left listening.
        """
        host = self._host({})
        self.start()
        for one in self.config.listener:
            self._servers.append(
                server.start(
                    ae,
                    (one.host, one.port),
                    self._listeners[one.label],
                    host,
                    slots=self._shared.slots,
                    quiet=True,
                )
            )
        return list(self._servers)

    def take_over(self, ae: Any) -> dict[str, PassedServer]:
        """Return a server for each listener, by its label; another process listens and accepts."""
        host = self._host({})
        self.start()
        servers = {
            one.label: start_passed(
                ae, (one.host, one.port), self._listeners[one.label], host, self._shared.slots
            )
            for one in self.config.listener
        }
        self._servers.extend(servers.values())
        return servers

    def associate(
        self,
        ae: Any,
        addr: str,
        port: int,
        contexts: Sequence[Any] | None = None,
        ae_title: str = "ANY-SCP",
        max_pdu: int = 262_144,
        ext_neg: Sequence[Any] | None = None,
        evt_handlers: Sequence[tuple[Any, ...]] | None = None,
        *,
        identity: Claim | None = None,
        listener: str | None = None,
        server_name: str | None = None,
        check_name: bool = True,
    ) -> Association:
        """Request an association with the TLS profile, credential and trust of a listener.

        Takes what pynetdicom's ``AE.associate`` takes, TLS aside.

        Parameters
        ----------
        identity : Claim, optional
            User identity to send (PS3.15 B.4 to B.7).
        listener : str, optional
            Whose settings to use; the first listener's by default.
        server_name : str, optional
            The name the peer's certificate must hold; `addr` by default.
        check_name : bool
            False takes a certificate of any name, as long as it is trusted.

        Raises
        ------
        HandshakeRefused, PeerRefused, ServiceUnavailable
            Why there is no association.
        """
        table = self._table(listener)
        return scu.associate(
            addr,
            port,
            calling=ae.ae_title,
            called=ae_title,
            contexts=contexts or ae.requested_contexts,
            tls_context=building.client_context(table, self._ask_passphrase, check_name),
            server_name=server_name,
            identity=identity,
            max_pdu=max_pdu,
            ext_neg=ext_neg or (),
            evt_handlers=evt_handlers or (),
        )

    def stop(self, seconds: float | None = None) -> int:
        """Stop in order: requests in progress finish, new ones are refused, audit goes out.

        Parameters
        ----------
        seconds : float, optional
            How long requests in progress may take; ``limits.stop_seconds`` by default.

        Returns
        -------
        int
            How many associations were cut off.
        """
        if self._stopping.is_set():
            return 0
        seconds = self.config.limits.stop_seconds if seconds is None else seconds
        threads = [threading.Thread(target=one.stop, args=(seconds,)) for one in self._servers]
        left = 0
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        left = sum(len(one.associations()) for one in self._servers)
        self._stopping.set()
        if self._summing_up is not None:
            self._summing_up.stop()
            self._audit.stopped()
            self.audit.log_counts()
        self._close()
        return left

    def _close(self) -> None:
        self._shared.close()
        for archive in self._archives:
            archive.close()
        if self._identities is not None:
            self._identities.close()

    @property
    def archive(self) -> Archive | None:
        """Return where instances are kept, if this node keeps any."""
        return self._archives[0] if self._archives else None

    @property
    def quarantine(self) -> Archive | None:
        """Return where instances are kept that signatures made suspicious, if they are."""
        return self._archives[1] if len(self._archives) > 1 else None

    def __enter__(self) -> SecureNode:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def describe(self) -> list[str]:
        """Return what each plug-in does, in the order a connection meets them."""
        return [plugin.describe() for plugin in self._plugins]

    def status(self) -> dict[str, Any]:
        """Return how the node is, as plain data: what the ``status`` verb gets to see."""
        return {"pid": os.getpid(), "at": time.time(), "metrics": self.metrics.snapshot()}

    # -- building --------------------------------------------------------------------------

    def _label(self, name: str | None) -> str:
        return self._table(name).label

    def _table(self, name: str | None) -> configuration.Listener:
        for one in self.config.listener:
            if name in (None, one.label):
                return one
        known = ", ".join(self._listeners)
        raise ConfigurationError(f"no listener {name!r}, known: {known}")

    def _listener(self, table: configuration.Listener) -> server.Listener:
        context = None
        if table.profile != PLAIN:
            paths = building.files_of(table)
            reloading = Reloading(
                partial(building.server_context, table, self._ask_passphrase),
                paths,
                on_problem=partial(self._bad_material, table.label),
            )
            context = partial(getattr, reloading, "current")
            missing = reloading.current.missing
            if missing:
                logger.warning(
                    "%s: this OpenSSL does not offer %s", table.label, ", ".join(missing)
                )
        return server.Listener(
            table.label,
            context,
            observe=table.mode == "observe",
            limits=building.limits_of(self.config.limits),
        )

    def _bad_material(self, label: str, error: Exception) -> None:
        text = f"{label}: changed files cannot be used, the last good ones stay: {error}"
        self._audit.problem(text)

    def _signatures(self) -> SignaturePlugin:
        table = self.config.signatures
        if not table.looks:
            return SignaturePlugin(_nobody_verifies, table.policy)
        reloading = Reloading(
            partial(building.signature_verifier, table),
            building.signature_files(table),
            on_problem=partial(self._bad_material, "signatures"),
        )
        return SignaturePlugin(
            lambda: reloading.current, table.policy, table.overrides, table.refused
        )

    def _build_plugins(self, given: Mapping[str, Plugin]) -> list[Plugin]:
        assert self._identities is not None  # made before the plug-ins
        ours: dict[str, Plugin] = {
            "certificate": CertificatePlugin(
                CertificateBindings(tuple(b.binding for b in self.config.certificate.binding))
            ),
            "identity": IdentityPlugin(identity_policies(self.config), self._identities.backends),
            "access": AccessPlugin(AccessPolicy(self.config.access.rule)),
            "signatures": self._signatures(),
            "audit": self._audit,
        }
        if self.archive is not None:
            ours["storage"] = StoragePlugin(self.archive, self.quarantine)
        names = self.config.node.plugins
        for name in given:
            if name not in names:
                raise ConfigurationError(f"plug-in {name!r} is not listed", "node.plugins")
        return [given.get(name) or ours.get(name) or building.plugin_named(name) for name in names]

    def _host(self, application: dict[Any, Any]) -> PluginHost:
        storage = next((p for p in self._plugins if isinstance(p, StoragePlugin)), None)
        plugins = [MetricsPlugin(self.metrics), *self._plugins]
        return PluginHost(plugins, storage.receive if storage else None, application)


def _nobody_verifies() -> Verifier:
    raise AssertionError("no policy looks at signatures")


def _split_handlers(
    handlers: Sequence[tuple[Any, ...]],
) -> tuple[dict[Any, tuple[Any, Sequence[Any]]], list[tuple[Any, ...]]]:
    """Part the application's handlers into those that answer and those that are told."""
    answering: dict[Any, tuple[Any, Sequence[Any]]] = {}
    told: list[tuple[Any, ...]] = []
    for event, handler, *args in handlers:
        if isinstance(event, evt.InterventionEvent):
            answering[event] = (handler, args[0] if args and args[0] else ())
        else:
            told.append((event, handler, *args))
    return answering, told
