"""What a worker process has in place of `shared.NodeState`: it asks its supervisor for everything.

When the supervisor cannot be asked the answer is `ServiceUnavailable`, and whoever asked refuses.
"""

from __future__ import annotations

import fcntl
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from types import TracebackType
from typing import cast

from dicom_secure_node.audit.delivery import RepositoryStatus
from dicom_secure_node.audit.limiter import Key, Summary
from dicom_secure_node.audit.messages import AuditMessage
from dicom_secure_node.audit.suppress import AuditSuppressions
from dicom_secure_node.errors import ServiceUnavailable
from dicom_secure_node.identity.lockout import Counts, Locked
from dicom_secure_node.identity.passcodes import Room
from dicom_secure_node.identity.replay import Uses
from dicom_secure_node.node.context import Connection
from dicom_secure_node.node.plugins.audit import Limiter
from dicom_secure_node.node.slots import Counting, cut
from dicom_secure_node.secure_node.channel import Channel
from dicom_secure_node.secure_node.reporting import NodeAudit
from dicom_secure_node.secure_node.shared import KeptTrail
from dicom_secure_node.secure_node.shared_identity import SharedIdentity

_FULL_SECONDS = 0.2  # that an answer to `full` counts


class RemoteState:
    """The one audit trail, slots and identity state of a node, in another process; see `Shared`.

    Parameters
    ----------
    channel : Channel
    ae_title : str
        The node's.
    turn : int
        Descriptor of the file that is locked during a passcode hash.
    """

    owner = False

    def __init__(self, channel: Channel, ae_title: str, turn: int) -> None:
        self.handed = HandedSlots(channel)
        self.slots: Counting = self.handed
        self.limiter: Limiter = _RemoteLimiter(channel)
        self.identity: SharedIdentity = _RemoteIdentity(channel, turn)
        trail = _RemoteTrail(channel)
        self.trail: KeptTrail = trail
        self.audit: NodeAudit = _RemoteAudit(trail, ae_title)

    def start(self) -> None:
        """Do nothing: it runs already."""

    def close(self) -> None:
        """Do nothing: it goes on for others."""


class HandedSlots:
    """The connections this process was handed; the supervisor counts them (`node.slots`)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._open: dict[str, socket.socket | None] = {}  # None: the supervisor has ended it

    def take(self, connection: Connection, sock: socket.socket) -> str:
        """Note a connection; it has its slot, or it would not have come here.

        Called when it arrives, so that it can be ended from then on, and by its server again.
        """
        with self._lock:
            self._open.setdefault(connection.id, sock)
        return ""

    def end(self, connection_id: str) -> None:
        """End a connection whose place the supervisor has given to another."""
        with self._lock:
            sock = self._open.get(connection_id)
            if sock is not None:
                self._open[connection_id] = None
                cut(sock)

    def secured(self, connection: Connection, sock: socket.socket) -> None:
        """Note the socket that stands for a connection from now on."""
        with self._lock:
            if self._open.get(connection.id) is None:
                cut(sock)  # it was ended meanwhile
            else:
                self._open[connection.id] = sock

    def associated(self, connection: Connection) -> bool:
        """Tell that a connection is to have an association; False: there are too many."""
        return bool(self._channel.call("associated", connection.id))

    def give_back(self, connection: Connection) -> bool:
        """Give a slot back; return False when it had been taken away."""
        with self._lock:
            held = self._open.pop(connection.id, None) is not None
        with suppress(ServiceUnavailable):
            self._channel.call("give_back", connection.id)
        return held

    def __len__(self) -> int:
        with self._lock:
            return len(self._open)


class _RemoteTrail:
    """Keeps audit messages in the supervisor's trail."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._full = False
        self._asked = float("-inf")

    def emit(self, message: AuditMessage) -> None:
        """Keep a message; it is on the disk when this returns, delivery follows."""
        self._channel.call("emit", message)

    def kept(self, message: AuditMessage) -> bool:
        """Keep a message unless a rule suppresses it; return whether it is kept."""
        return bool(self._channel.call("emit", message))

    @property
    def full(self) -> bool:
        """Return True when the node had better not create further events."""
        now = time.monotonic()
        if now - self._asked >= _FULL_SECONDS:
            self._full, self._asked = bool(self._channel.call("full")), now
        return self._full

    def status(self) -> tuple[RepositoryStatus, ...]:
        """Return how delivery stands, one entry a repository."""
        return cast("tuple[RepositoryStatus, ...]", self._channel.call("status"))

    def waiting_since(self) -> Mapping[str, datetime]:
        """Return since when the oldest message waits, by repository."""
        return cast("Mapping[str, datetime]", self._channel.call("waiting_since"))


class _RemoteAudit(NodeAudit):
    """Reports events to the supervisor, which asks the suppress rules."""

    def __init__(self, trail: _RemoteTrail, ae_title: str) -> None:
        super().__init__(trail, AuditSuppressions(()), ae_title)
        self._remote = trail

    def emit(self, message: AuditMessage) -> bool:
        """Keep a message; see `NodeAudit.emit`."""
        return self._remote.kept(message)


class _RemoteLimiter:
    """Counts alerts together with the other processes; the supervisor sums up."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def admit(self, key: Key, /) -> bool:
        """Return True when the alert is to be reported now."""
        return bool(self._channel.call("admit", key))

    def due(self, **_: bool) -> list[Summary]:
        """Return nothing: the sums are not made here."""
        return []


class _RemoteIdentity:
    """What those who verify identities have to agree on; see `SharedIdentity`."""

    def __init__(self, channel: Channel, turn: int) -> None:
        self._channel = channel
        self.lockout: Counts = _RemoteLockout(channel)
        self.places: Room = _RemotePlaces(channel)
        self.turn: AbstractContextManager[object] | None = Turn(turn)

    def used(self, name: str) -> Uses:
        """Return what remembers the tickets, assertions or tokens used once."""
        self._channel.call("open_used", name)
        return _RemoteUses(self._channel, name)

    def close(self) -> None:
        """Do nothing: it goes on for others."""


class _RemoteLockout:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def check(self, user: str, address: str) -> None:
        self._channel.call("lockout_check", user, address)

    def delay(self, user: str) -> float:
        return float(self._channel.call("lockout_delay", user))

    def failed(self, user: str, address: str) -> Locked | None:
        return cast("Locked | None", self._channel.call("lockout_failed", user, address))

    def succeeded(self, user: str, address: str) -> None:
        self._channel.call("lockout_succeeded", user, address)


class _RemotePlaces:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def take(self, address: str) -> None:
        self._channel.call("take_place", address)

    def give_back(self, address: str) -> None:
        self._channel.call("give_place", address)


class _RemoteUses:
    def __init__(self, channel: Channel, name: str) -> None:
        self._channel = channel
        self._name = name

    def use(self, key: str, until: datetime) -> bool:
        return bool(self._channel.call("use", self._name, key, until))

    def close(self) -> None:
        """Do nothing: others use it."""


class Turn:
    """One at a time among all threads of all processes that have the same file open.

    The kernel lets go of the lock of a process that dies. Such a lock is the process's, not the
    thread's, hence the second one.

    Parameters
    ----------
    descriptor : int
        Of the file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def __enter__(self) -> Turn:
        self._lock.acquire()
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        finally:
            self._lock.release()
