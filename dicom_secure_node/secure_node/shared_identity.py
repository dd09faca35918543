"""What those who verify identities have to agree on, in however many processes they are."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

from dicom_secure_node import config
from dicom_secure_node.identity.lockout import Counts, Lockout
from dicom_secure_node.identity.passcodes import Places, Room
from dicom_secure_node.identity.replay import ReplayStore, Uses


class SharedIdentity(Protocol):
    """What those who verify identities have to agree on.

    Attributes
    ----------
    lockout : Counts
        Who failed too often.
    places : Room
        Passcodes verified at a time.
    turn : context manager or None
        Held while a passcode is hashed, where other processes may be at it.
    """

    lockout: Counts
    places: Room
    turn: AbstractContextManager[object] | None

    def used(self, name: str) -> Uses:
        """Return what remembers the tickets, assertions or tokens used once."""

    def close(self) -> None:
        """Let go of it."""


class IdentityState:
    """The state behind the identity back-ends, in this process; see `SharedIdentity`.

    Parameters
    ----------
    table : Lockout
        Limits of the lock-out.
    replay : Path
        Folder of what was used.
    """

    def __init__(self, table: config.Lockout, replay: Path) -> None:
        self._replay = replay
        self._stores: dict[str, ReplayStore] = {}
        self._lock = threading.Lock()
        self.lockout: Counts = Lockout(
            failures=table.failures,
            window=table.window_seconds,
            lock=table.lock_seconds,
            address_failures=table.address_failures,
        )
        self.places: Room = Places()
        self.turn: AbstractContextManager[object] | None = None

    def used(self, name: str) -> Uses:
        """Return the notes of this name, the same ones each time.

        Raises
        ------
        ServiceUnavailable
            The folder cannot be used.
        """
        with self._lock:
            if name not in self._stores:
                self._stores[name] = ReplayStore(self._replay / name)
            return self._stores[name]

    def close(self) -> None:
        """Let the folders go."""
        with self._lock, ExitStack() as ends:
            for store in self._stores.values():
                ends.callback(store.close)
            self._stores = {}
