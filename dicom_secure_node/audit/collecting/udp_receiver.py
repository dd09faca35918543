"""Syslog over UDP (RFC 5426), received: one datagram, one message.

Whoever can reach the port can send, under any name; what there is no room for is lost. Both is
so with UDP (PS3.15 A.7); losses are counted as far as the system tells.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from datetime import UTC, datetime
from typing import Any

from dicom_secure_node.audit.collecting.inbox import Inbox
from dicom_secure_node.audit.collecting.records import UDP, Arrival
from dicom_secure_node.audit.collecting.reporting import Reporter
from dicom_secure_node.audit.collecting.settings import Collect

_LARGEST = 65_535
_BUFFER = 8 * 1024 * 1024  # octets asked of the system for datagrams that wait; it may give less
_AT_ONCE = 64
_SO_RXQ_OVFL = 40  # <asm-generic/socket.h>: how many were dropped so far, with each datagram
_LOOK_SECONDS = 0.5


class UDPReceiver:
    """Listens, and offers what comes to the inbox.

    Raises
    ------
    OSError
        The address is not to be had.
    """

    def __init__(self, settings: Collect, port: int, inbox: Inbox, reporter: Reporter) -> None:
        self._limit = settings.message_limit
        self._inbox = inbox
        self._reporter = reporter
        self._dropped = 0  # by the system, as it told last
        self._stopping = threading.Event()
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            with contextlib.suppress(OSError):  # Linux only
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
            if settings.host == "::":
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self._socket.bind((settings.host, port))
        except BaseException:
            self._socket.close()
            raise
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._receive, name="audit-udp")

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def stop(self) -> None:
        """Take what is there already, and end."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()

    def _receive(self) -> None:
        while True:
            last = self._stopping.is_set()
            select.select([self._socket], [], [], 0 if last else _LOOK_SECONDS)
            while found := self._read():
                if not self._inbox.offer(found):
                    self._lose(len(found), "no room")
            if last:
                return

    def _read(self) -> list[Arrival]:
        """Return what is there now, up to a bound."""
        found: list[Arrival] = []
        now = datetime.now(UTC)
        for _ in range(_AT_ONCE):
            try:
                raw, more, _, address = self._socket.recvmsg(_LARGEST, socket.CMSG_SPACE(4))
            except OSError:  # nothing more there; an error of an earlier datagram is none of ours
                break
            self._note_dropped(more)
            host = str(address[0]).partition("%")[0]
            host = host.removeprefix("::ffff:") if "." in host else host
            if len(raw) > self._limit:
                self._reporter.add("oversized")
                text = f"refused a message of more than {self._limit} octets"
                self._reporter.warn("oversized", host, text)
            elif raw:
                peer = f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
                found.append(Arrival(raw, now, peer, UDP))
        return found

    def _note_dropped(self, more: list[Any]) -> None:
        for level, kind, octets in more:
            if level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL and len(octets) >= 4:
                (dropped,) = struct.unpack("=I", octets[:4])
                if dropped != self._dropped:
                    self._lose((dropped - self._dropped) % 2**32, "the system dropped them")
                    self._dropped = dropped

    def _lose(self, number: int, why: str) -> None:
        self._reporter.add("lost", number)
        self._reporter.warn("lost", "UDP", f"datagrams are lost: {why}")
