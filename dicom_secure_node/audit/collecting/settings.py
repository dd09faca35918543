"""What a repository is told: the table ``[collect]`` of its file, or options."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dicom_secure_node.errors import ConfigurationError


@dataclass(frozen=True)
class Collect:
    """``[collect]``.

    Attributes
    ----------
    host : str
        Address to listen on, for TLS and UDP.
    port : int
        TLS (RFC 5425); 0 takes a free one.
    udp_port : int, optional
        UDP (RFC 5426), customarily 514; none unless given. Anybody can send there, under any
        name, and messages are lost.
    credential : tuple of Path
        Certificate and key without their endings; one RSA, one EC, or both.
    trust, crl : tuple of Path
        Whose senders may connect, and revocation lists.
    client_certificate : str
        ``require``, ``verify`` or ``ignore``, as for a listener of the node.
    profile : str
        TLS profile of PS3.15 Annex B.
    folder : Path
        Of the log, and the index unless that is elsewhere.
    index : str
        ``postgresql://...``; SQLite in `folder` if empty.
    judges : int
        Processes that judge messages for the index, each about 1000 a second.
    keep_days : float
        Days until the oldest files are deleted; 0 keeps everything.
    message_limit : int
        Octets of a message; longer ones are refused and counted. At least 32768 (A.6).
    connections, connections_per_address : int
        Open at the same time.
    handshake_seconds, frame_seconds : float
        For a whole handshake, and for a whole message once it has begun.
    idle_seconds : float
        After so long without an octet a connection is closed. Long, for a reason: many senders
        do not notice and lose the next message.
    group_seconds : float
        How long a message waits for others to share a write to the disk with.
    buffer : int
        Octets received and not on the disk yet.
    head_seconds : float
        How often the head of the log goes to the program's own log, if it has moved.
    segment_bytes : int
        Size of the log's files.
    """

    host: str = "0.0.0.0"  # noqa: S104 - what a repository is for
    port: int = 6514
    udp_port: int | None = None
    credential: tuple[Path, ...] = (Path("pki/node"),)
    trust: tuple[Path, ...] = (Path("pki/ca.crt"),)
    crl: tuple[Path, ...] = ()
    client_certificate: Literal["require", "verify", "ignore"] = "require"
    profile: str = "8996"
    folder: Path = Path("collected")
    index: str = field(default="", repr=False)  # may hold a password
    judges: int = 1
    keep_days: float = 0.0
    message_limit: int = 256 * 1024
    connections: int = 1024
    connections_per_address: int = 64
    handshake_seconds: float = 10.0
    frame_seconds: float = 60.0
    idle_seconds: float = 86_400.0
    group_seconds: float = 0.02
    buffer: int = 8 * 1024 * 1024
    head_seconds: float = 600.0
    segment_bytes: int = 16 * 1024 * 1024

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ConfigurationError(f"found {value}, wanted {least} to {most}", name)
        if not self.host.strip():
            raise ConfigurationError("found nothing, wanted an address", "host")


_DAY = 86_400
_RANGES: dict[str, tuple[float, float]] = {
    "port": (0, 65_535),
    "udp_port": (0, 65_535),
    "judges": (1, 64),
    "keep_days": (0, 100_000),
    "message_limit": (32_768, 1024 * 1024),
    "connections": (1, 10_000),
    "connections_per_address": (1, 10_000),
    "handshake_seconds": (0.1, 600),
    "frame_seconds": (0.1, 3600),
    "idle_seconds": (0.1, 30 * _DAY),
    "group_seconds": (0, 5),
    "buffer": (64 * 1024, 1024**3),
    "head_seconds": (0.1, _DAY),
    "segment_bytes": (4096, 1024**3),
}
