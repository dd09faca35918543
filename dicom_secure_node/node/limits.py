"""How much a peer may ask of a node."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from dicom_secure_node.errors import Refused
from dicom_secure_node.node.slots import Slots


@dataclass(frozen=True)
class Limits:
    """How much a peer may ask of us. Sizes in bytes, times in seconds.

    Attributes
    ----------
    connections, connections_per_address : int
        Open connections in all, and from one address.
    associations : int
        Associations open at once; 0: four fifths of `connections`.
    handshake_seconds : float
        For the whole TLS handshake.
    request_seconds : float
        From the connection's start, or the handshake's end, to a complete A-ASSOCIATE-RQ.
    idle_seconds : float
        Without any PDU on an association.
    pdu_seconds : float
        For one PDU after the association, and for one of ours to be taken.
    pdu_length : int
        Announced to the peer as Maximum Length (PS3.8 D.1).
    request_length : int
        Of the A-ASSOCIATE-RQ.
    command_length, identifier_length : int
        Of a command set, and of a data set other than C-STORE's.
    instance_length, memory_length : int
        Of one C-STORE data set; and of one that an application wants in memory.
    outstanding : int
        C-STORE requests one peer may have sent before our answer.
    """

    connections: int = 200
    connections_per_address: int = 50
    associations: int = 0
    handshake_seconds: float = 10.0
    request_seconds: float = 10.0
    idle_seconds: float = 300.0
    pdu_seconds: float = 60.0
    pdu_length: int = 1_048_576
    request_length: int = 262_144
    command_length: int = 65_536
    identifier_length: int = 4_194_304
    instance_length: int = 8_589_934_592
    memory_length: int = 1_073_741_824
    outstanding: int = 16

    def slots(self, end: Callable[[str, socket.socket], None] | None = None) -> Slots:
        """Return what counts connections by these limits; `end` as `Slots` takes it."""
        associations = self.associations or max(1, self.connections * 4 // 5)
        return Slots(self.connections, self.connections_per_address, end, associations)


class ProtocolFault(Refused):
    """The peer broke a rule of PS3.7 or PS3.8; the association is aborted."""
