"""Who takes part: every receiver by a name, made and started when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks import receivers
from benchmarks.receivers import Pki, Receiver
from benchmarks.rounds import WARM_UP, Rounds
from benchmarks.signed import SIGNATURES, Signers

STORESCP, ORTHANC, BARE = "storescp +B", "Orthanc", "bare pynetdicom"
NODE, WORKERS, VERIFYING, ON_DISK = "node", "node, 2 workers", "node, verifying", "node, disk"
PLUG_IN, PLUG_IN_STOCK = "plug-in", "plug-in, no fast lane"
FORKING = "storescp --fork"
CREDENTIALS = {"RSA 2048": ("node", "client"), "P-256": ("node-ec", "client-ec")}


class Field:
    """The receivers of a run.

    Parameters
    ----------
    memory, disk : Path
        Folders for the homes of the receivers, the second one for what syncs to a disk.
    stack : ExitStack
        Stops them.

    Attributes
    ----------
    pki : Pki
        What all of them show, and whom they trust.
    signers : Signers
        Of the instances that the verifying node takes.
    started : dict
        Receivers by name, for the facts.
    """

    def __init__(self, memory: Path, disk: Path, stack: ExitStack) -> None:
        self._memory = memory
        self._stack = stack
        self.pki = pki = Pki.make(memory / "pki")
        self.signers = Signers(memory / "verifying")
        self.started: dict[str, Receiver] = {}
        self._calling: dict[tuple[str, str], Receiver] = {}
        self._make: dict[str, Callable[[Path], Receiver]] = {
            STORESCP: lambda home: receivers.storescp(home, pki),
            ORTHANC: lambda home: receivers.orthanc(home, pki),
            BARE: lambda home: receivers.bare(home, pki),
            NODE: lambda home: receivers.node(home, NODE, pki),
            WORKERS: lambda home: receivers.node(home, WORKERS, pki, workers=2),
            VERIFYING: lambda _: self._verifying(),
            ON_DISK: lambda _: receivers.node(disk / "node", ON_DISK, pki),
            PLUG_IN: lambda home: receivers.plug_in(home, PLUG_IN, pki, shows_pdus=False),
            PLUG_IN_STOCK: lambda home: receivers.plug_in(
                home, PLUG_IN_STOCK, pki, shows_pdus=True
            ),
        }

    def takers(self, rounds: Rounds, *names: str) -> list[Receiver]:
        """Return receivers, warmed up; one the configuration does not take is left out."""
        return [self._taker(name, rounds) for name in names if not self.left_out(name)]

    def left_out(self, name: str) -> str:
        """Return why a receiver does not take part, or nothing."""
        return receivers.workers_refused(2) if name == WORKERS else ""

    def callable_ones(self, kind: str) -> dict[Receiver, Pki]:
        """Return who is called with a credential of `CREDENTIALS`, and with what."""
        server, client = CREDENTIALS[kind]
        pki = replace(self.pki, server=server, client=client)
        makers: dict[str, Callable[[Path], Receiver]] = {
            FORKING: lambda home: receivers.forking_storescp(home, pki),
            BARE: lambda home: receivers.bare(home, pki),
            NODE: lambda home: receivers.node(home, NODE, pki, credential=server),
        }
        for name, make in makers.items():
            if (kind, name) not in self._calling:
                home = self._memory / server / _folder(name)
                self._calling[kind, name] = self._start(make(home))
        return {self._calling[kind, name]: pki for name in makers}

    def _taker(self, name: str, rounds: Rounds) -> Receiver:
        if name not in self.started:
            self.started[name] = made = self._start(self._make[name](self._memory / _folder(name)))
            # What is not signed it would refuse.
            load = self.signers.signed(WARM_UP) if name == VERIFYING else WARM_UP
            rounds.warm_up(made, load)
        return self.started[name]

    def _verifying(self) -> Receiver:
        _ = self.signers.signer  # the node trusts its authority from the start
        settings = receivers.ACCESS_RULE + SIGNATURES
        return receivers.node(self.signers.home, VERIFYING, self.pki, settings)

    def _start(self, receiver: Receiver) -> Receiver:
        self._stack.callback(receiver.stop)
        receiver.start()
        return receiver


def _folder(name: str) -> str:
    return name.replace(" ", "-").replace(",", "")
