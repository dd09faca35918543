"""The life of a worker process: a `SecureNode` that is handed its connections."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from dicom_secure_node.config import NodeConfig
from dicom_secure_node.errors import ConfigurationError, SecureNodeError, ServiceUnavailable
from dicom_secure_node.node.passed import PassedServer
from dicom_secure_node.secure_node.channel import Channel
from dicom_secure_node.secure_node.handing import Arrived, End, Tell, take
from dicom_secure_node.secure_node.node import SecureNode
from dicom_secure_node.secure_node.remote import HandedSlots, RemoteState

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


def work(
    hand: socket.socket,
    channel: Channel,
    turn: int,
    make_ae: Callable[[NodeConfig], Any],
    told_to_stop: Callable[[], bool],
) -> bool:
    """Serve what the supervisor hands over, until it says that this was the last.

    Parameters
    ----------
    hand : socket
        Where connections come from, see `handing`.
    channel : Channel
        For what a node has once, see `shared`.
    turn : int
        Descriptor of the file that is locked during a passcode hash.
    make_ae : callable
        Returns the application entity of a configuration.
    told_to_stop : callable
        Whether somebody has asked this process alone to end; it is replaced then.

    Returns
    -------
    bool
        Whether all went well; the supervisor knows what has not.
    """
    config, asks = channel.call("configuration")
    ask = partial(channel.call, "passphrase") if asks else None
    try:
        shared = RemoteState(channel, config.node.ae_title, turn)
        node = SecureNode(config, ask_passphrase=ask, shared=shared)
        servers = node.take_over(make_ae(config))
    except (SecureNodeError, OSError) as exc:
        channel.call("failed", _as_ours(exc))
        return False
    last = threading.Event()

    def report(question: int = 0) -> None:
        channel.call("report", node.metrics.snapshot(), question)

    report()
    threading.Thread(
        target=_follow,
        args=(hand, servers, shared.handed, last, report),
        name="orders",
        daemon=True,
    ).start()
    channel.call("ready", node.describe())
    told = False
    while not last.wait(_LOOK_SECONDS):
        if told_to_stop() and not told:
            told = True
            channel.call("draining")  # it answers with the last order
        report()
    cut_off = node.stop()
    report()
    channel.call("ended", cut_off)
    return True


def _follow(
    hand: socket.socket,
    servers: dict[str, PassedServer],
    slots: HandedSlots,
    last: threading.Event,
    report: Callable[[int], None],
) -> None:
    """Carry out the supervisor's orders; without a supervisor there is nothing to live for."""
    while True:
        taken = take(hand)
        if taken is None:
            # What it must know of cannot be told any more, so nothing more may be done. What was
            # acknowledged is on the disk, and the next start audits it.
            logger.error("the supervisor process is gone: this worker ends")
            os._exit(1)
        order, sock = taken
        if isinstance(order, Arrived):
            try:
                _serve(order, sock, servers, slots)
            except Exception:  # no room for another descriptor or thread
                logger.exception("%s: cannot take a connection", order.connection.listener)
                if sock is not None:
                    sock.close()
                slots.give_back(order.connection)
        elif isinstance(order, End):
            slots.end(order.connection_id)
        elif isinstance(order, Tell):
            with suppress(ServiceUnavailable):  # the next turn of the loop sees that it is gone
                report(order.number)
        else:
            last.set()


def _serve(
    order: Arrived,
    sock: socket.socket | None,
    servers: dict[str, PassedServer],
    slots: HandedSlots,
) -> None:
    if sock is None:
        raise OSError("too many open files: the descriptor was dropped")
    slots.take(order.connection, sock)
    servers[order.connection.listener].serve_passed(sock, order.connection, order.address)


def _as_ours(error: SecureNodeError | OSError) -> SecureNodeError:
    """Return what keeps a worker from starting as one of our own errors."""
    if isinstance(error, SecureNodeError):
        return error
    where = None if error.filename is None else str(error.filename)
    return ConfigurationError(error.strerror or str(error), where)
