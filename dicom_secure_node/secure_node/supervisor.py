"""A node of several processes: this one listens, keeps the trail and counts; workers do the rest.

1. It binds every listener, so that a port that is taken shows before anything else.
2. It starts the workers (`crew`). Each makes a `SecureNode` of the same configuration, with TLS
   contexts, plug-ins and an archive object of its own, all on the same folder.
3. It accepts, counts the connection against the limits, and hands it to a worker.
4. It answers the workers' calls (`channel`): one audit trail, one memory of what was used once, one
   lock-out, one bound on passcode hashes, for all of them.
5. When a worker dies it puts in order what that one left: connections, temporary files, the index,
   and audit messages for what was stored and not yet reported.

Nothing a peer sends is read here.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from dicom_secure_node import config
from dicom_secure_node.archive import Archive
from dicom_secure_node.errors import HandshakeRefused
from dicom_secure_node.node.context import Connection
from dicom_secure_node.node.metrics import merge
from dicom_secure_node.node.plugins.audit import AuditPlugin
from dicom_secure_node.node.plugins.metrics import MetricsPlugin
from dicom_secure_node.node.server import Listener, SecureServer, describe
from dicom_secure_node.node.slots import cut
from dicom_secure_node.secure_node import building
from dicom_secure_node.secure_node.channel import Call
from dicom_secure_node.secure_node.crew import Crew, Launch, Worker
from dicom_secure_node.secure_node.measuring import OfWorkers, metrics_of
from dicom_secure_node.secure_node.reporting import SummingUp
from dicom_secure_node.secure_node.shared import NodeState

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 10.0  # for a worker to end, beyond what it has for its requests


class Supervisor:
    """A node that serves with ``node.workers`` processes; see the module.

    Parameters
    ----------
    tables : NodeConfig
    launch : callable
        Starts a worker's process, see `Crew`.
    ask_passphrase : callable, optional
        As for `SecureNode`; asked here, whichever worker wants to know.

    Raises
    ------
    ServiceUnavailable
        The archive or the audit store cannot be used.
    """

    def __init__(
        self,
        tables: config.NodeConfig,
        launch: Launch,
        ask_passphrase: building.Ask | None = None,
    ) -> None:
        self.config = tables
        self._ask = ask_passphrase
        self._asking = threading.Lock()
        self._lock = threading.Lock()
        self._doing: list[str] = []
        self._cut_off = 0
        self._stopped = False
        self._stopping = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._summing_up: SummingUp | None = None
        self._archives: tuple[Archive, ...] = ()
        self._turn = os.memfd_create("passcode hash")
        self._slots = building.limits_of(tables.limits).slots(self._end)
        self._state = NodeState(tables, self._slots)
        try:
            self._archives = building.open_archives(tables)
        except BaseException:
            self._close()
            raise
        self.metrics = metrics_of(tables, self._state.trail, self._slots.__len__)
        self._counting = MetricsPlugin(self.metrics)
        self._workers = OfWorkers()
        audit = self._state.audit
        self._audit = AuditPlugin(
            audit, tables.node.ae_title, self._state.limiter, self._archives, audit.remark
        )
        self._crew = Crew(tables.node.workers, launch, self._turn, self._calls, self._ended)

    # -- running ---------------------------------------------------------------------------

    def listen(self) -> list[int]:
        """Start everything and return the port of each listener, once all workers are ready.

        Raises
        ------
        OSError
            An address is in use, or not ours.
        SecureNodeError
            What keeps the workers from starting.
        """
        tables = self.config.listener
        for table in tables:
            self._sockets.append(_bound(table.host, table.port))
        self._crew.start()
        self._state.start()
        self._audit.started()
        self._summing_up = SummingUp(self._audit.sum_up)
        for table, sock in zip(tables, self._sockets, strict=True):
            sock.listen(SecureServer.request_queue_size)
            listener = Listener(table.label, observe=table.mode == "observe")
            thread = threading.Thread(
                target=self._accept, args=(sock, listener), name=f"listener {table.label}",
                daemon=True,
            )  # fmt: skip
            thread.start()
            self._threads.append(thread)
        return [sock.getsockname()[1] for sock in self._sockets]

    def describe(self) -> list[str]:
        """Return what each plug-in does, in the order a connection meets them."""
        return [*self._doing, f"work is shared by {self.config.node.workers} processes"]

    def status(self) -> dict[str, Any]:
        """Return how the node is, all its processes together; see `SecureNode.status`."""
        together = merge([self.metrics.snapshot(), *self._workers.asked(self._crew.tell)])
        return {"pid": os.getpid(), "at": time.time(), "metrics": together}

    def stop(self) -> int:
        """Stop in order: requests in progress finish, new ones are refused, audit goes out.

        Returns
        -------
        int
            How many associations were cut off.
        """
        if self._stopped:
            return 0
        self._stopped = True
        self._stopping.set()
        for sock in self._sockets:
            cut(sock)  # wakes who is in accept
            sock.close()
        self._crew.stop(self.config.limits.stop_seconds + _GRACE_SECONDS)
        for thread in self._threads:
            thread.join()
        if self._summing_up is not None:
            self._summing_up.stop()
            self._audit.stopped()
            self._state.audit.log_counts()
        self._close()
        return self._cut_off

    def _close(self) -> None:
        self._state.close()
        for archive in self._archives:
            archive.close()
        os.close(self._turn)

    # -- connections -----------------------------------------------------------------------

    def _accept(self, listening: socket.socket, listener: Listener) -> None:
        while not self._stopping.is_set():
            try:
                sock, address = listening.accept()
            except OSError as exc:
                if not self._stopping.wait(0.05):  # out of descriptors: waiting beats spinning
                    logger.error("%s: cannot accept: %s", listener.name, exc.strerror)
                continue
            with sock:
                try:
                    self._take(sock, describe(listener, sock, address), address)
                except Exception:  # no room for a thread, say: the next one may have luck
                    logger.exception("%s: a connection was dropped", listener.name)

    def _take(self, sock: socket.socket, connection: Connection, address: Any) -> None:
        """Hand a connection on, or refuse it."""
        why = self._slots.take(connection, sock)
        if not why and not self._crew.hand(sock, connection, address):
            self._slots.give_back(connection)
            why = "the node is stopping" if self._stopping.is_set() else "no worker takes it"
        if why:
            # Not here: who waits for the disk accepts nobody.
            threading.Thread(
                target=self._refused, args=(connection, HandshakeRefused("limit reached", why)),
                name="refusal", daemon=True,
            ).start()  # fmt: skip

    def _refused(self, connection: Connection, error: HandshakeRefused) -> None:
        logger.warning(
            "%s: connection from %s refused: %s",
            connection.listener, connection.address, error.reason,
        )  # fmt: skip
        self._counting.on_handshake_failed(connection, error)
        try:
            self._audit.on_handshake_failed(connection, error)
        except Exception:
            logger.exception("a refusal could not be recorded")

    def _end(self, connection_id: str, sock: socket.socket) -> None:
        """End a connection whose place another one gets."""
        if not self._crew.end(connection_id):
            cut(sock)

    # -- workers ---------------------------------------------------------------------------

    def _calls(self, worker: Worker) -> Mapping[str, Call]:
        """Return what a worker may ask for."""
        state, crew = self._state, self._crew
        identity = state.identity
        return {
            "configuration": lambda: (self.config, self._ask is not None),
            "passphrase": self._passphrase,
            "ready": partial(self._ready, worker),
            "failed": partial(crew.failed, worker),
            "draining": partial(crew.drain, worker),
            "ended": self._count_cut_off,
            "report": partial(self._workers.report, worker.number),
            "emit": state.audit.emit,
            "full": lambda: state.trail.full,
            "status": state.trail.status,
            "waiting_since": state.trail.waiting_since,
            "admit": state.limiter.admit,
            "associated": partial(self._associated, worker),
            "give_back": partial(self._give_back, worker),
            "open_used": self._open_used,
            "use": lambda name, key, until: identity.used(_store(name)).use(key, until),
            "lockout_check": identity.lockout.check,
            "lockout_delay": identity.lockout.delay,
            "lockout_failed": identity.lockout.failed,
            "lockout_succeeded": identity.lockout.succeeded,
            "take_place": partial(self._take_place, worker),
            "give_place": partial(self._give_place, worker),
        }

    def _open_used(self, name: str) -> None:
        """Make sure that the notes of this name can be kept, before anybody needs them."""
        self._state.identity.used(_store(name))

    def _passphrase(self, listener: str) -> bytes:
        assert self._ask is not None  # a worker asks only where it was told that it can
        with self._asking:
            return self._ask(listener)

    def _ready(self, worker: Worker, doing: list[str]) -> None:
        self._doing = doing
        self._crew.ready(worker)

    def _count_cut_off(self, count: int) -> None:
        with self._lock:
            self._cut_off += count

    def _associated(self, worker: Worker, connection_id: str) -> bool:
        connection = self._crew.connection(worker, connection_id)
        return connection is not None and self._slots.associated(connection)

    def _give_back(self, worker: Worker, connection_id: str) -> None:
        connection = self._crew.given_back(worker, connection_id)
        if connection is not None:
            self._slots.give_back(connection)

    def _take_place(self, worker: Worker, address: str) -> None:
        self._state.identity.places.take(address)
        with self._lock:
            worker.places[address] += 1

    def _give_place(self, worker: Worker, address: str) -> None:
        with self._lock:
            if worker.places[address] < 1:
                return
            worker.places[address] -= 1
        self._state.identity.places.give_back(address)

    def _ended(self, worker: Worker) -> None:
        """Put in order what a worker has left that is gone."""
        self._workers.ended(worker.number)
        left = dict(worker.connections)
        for connection_id in left:
            self._give_back(worker, connection_id)
        for address in list(worker.places.elements()):
            self._give_place(worker, address)
        if worker.draining and worker.process.returncode == 0:
            return
        if self._summing_up is None:  # none of them was ready yet: whoever starts them says why
            return
        words = f"worker process {worker.number} ended {worker.ending}"
        logger.error("%s, with %d connections", words, len(left))
        for archive in self._archives:
            archive.recover()
        self._audit.ended_without_report(left)
        self._audit.problem(words)


_STORES = ("kerberos", "saml", "jwt")


def _store(name: str) -> str:
    """Return the name of a replay store, for it becomes the name of a folder."""
    if name not in _STORES:
        raise ValueError("no such replay store")
    return name


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address, not listening yet: nobody is there to serve."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock
