"""What ``serve`` runs as a worker process; not a verb: it takes descriptors from its supervisor."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from multiprocessing.connection import Connection

from dicom_secure_node import commands
from dicom_secure_node.commands.foreground import Signals, keep_memory_together, log_to_stderr
from dicom_secure_node.commands.serve import application_entity
from dicom_secure_node.errors import SecureNodeError
from dicom_secure_node.secure_node.channel import Channel
from dicom_secure_node.secure_node.worker import work

logger = logging.getLogger("dicom_secure_node.serve")


def main() -> int:
    """Serve what the supervisor hands over; return the exit code."""
    parser = argparse.ArgumentParser(prog=f"{commands.PROGRAM} worker")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("hand", type=int)
    parser.add_argument("turn", type=int)
    parser.add_argument("pipes", type=int, nargs="+")
    args = parser.parse_args()
    keep_memory_together()
    log_to_stderr(args.verbose)
    signals = Signals()
    for number in (args.hand, args.turn, *args.pipes):
        os.set_inheritable(number, False)  # what a plug-in may start has no business with them
    hand = socket.socket(fileno=args.hand)
    channel = Channel([Connection(number) for number in args.pipes])
    try:
        good = work(hand, channel, args.turn, application_entity, lambda: signals.arrived)
    except SecureNodeError as exc:
        logger.error("this worker ends: %s", commands.explain(exc))
        return commands.exit_code(exc)
    return commands.DONE if good else commands.NEGATIVE


if __name__ == "__main__":
    sys.exit(main())
