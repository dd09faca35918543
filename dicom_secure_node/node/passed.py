"""A server whose connections were accepted by somebody else: the process that owns the port."""

from __future__ import annotations

import socket
import threading
from typing import Any, cast

from dicom_secure_node.node.context import Connection
from dicom_secure_node.node.host import PluginHost
from dicom_secure_node.node.server import Listener, SecureServer
from dicom_secure_node.node.slots import Counting


class PassedServer(SecureServer):
    """Serves connections it is handed, by a `Listener`'s rules, and listens on nothing."""

    def server_bind(self) -> None:
        """Bind nothing: the socket of the base class stays unused."""

    def server_activate(self) -> None:
        """Listen on nothing."""

    def shutdown(self) -> None:
        """Let the unused socket go; there is no accept loop to end."""
        self.server_close()
        self.ae._servers.remove(self)

    def serve_passed(self, sock: socket.socket, connection: Connection, address: Any) -> None:
        """Serve a connection in a thread of its own, like one that was accepted here.

        Parameters
        ----------
        sock : socket
            Accepted, and not a byte of it read.
        connection : Connection
            As whoever accepted it described it.
        address : tuple
            Of the peer, as ``accept`` returned it.
        """
        threading.Thread(
            target=self.serve_connection,
            args=(sock, connection, address),
            name=f"connection {connection.id[:8]}",
            daemon=True,
        ).start()


def start_passed(
    ae: Any, address: tuple[str, int], listener: Listener, host: PluginHost, slots: Counting
) -> PassedServer:
    """Return a server for the connections that arrive at `address`."""
    server = cast(
        PassedServer,
        ae.make_server(
            address,
            evt_handlers=host.handlers(),
            server_class=PassedServer,
            listener=listener,
            host=host,
            slots=slots,
            quiet=True,
        ),
    )
    ae._servers.append(server)
    return server
