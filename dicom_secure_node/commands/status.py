"""``status``: how a running node is, by its own figures."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from dicom_secure_node import commands
from dicom_secure_node.commands.home import DEFAULT_HOME
from dicom_secure_node.commands.output import emit_json
from dicom_secure_node.commands.status_report import as_text, summary
from dicom_secure_node.secure_node.status_socket import ask

_EXAMPLES = """examples:
  dicom-secure-node status --home secure-node
  dicom-secure-node status --json --watch 60
"""


def add_parser(subparsers: commands.Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``status``."""
    parser = subparsers.add_parser(
        "status",
        help="show the figures of a running node",
        description="Show what a running node has accepted and refused since its start, how fast "
        "it is, what waits for audit repositories, and when certificates run out. "
        "Exit code 3: no node runs there.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=DEFAULT_HOME,
        metavar="DIR",
        help="folder of the node (default: ./secure-node)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--watch", type=_seconds, metavar="SECONDS", help="again and again, until ctrl-C"
    )


def run(args: argparse.Namespace) -> int:
    """Ask the node and print what it tells."""
    while True:
        shown = summary(ask(args.home))
        if args.json:
            emit_json(shown)
        else:
            if args.watch and sys.stdout.isatty():
                sys.stdout.write("\033[H\033[2J")  # to the top of an empty screen
            sys.stdout.write(as_text(shown) + "\n")
            sys.stdout.flush()
        if not args.watch:
            return commands.DONE
        time.sleep(args.watch)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.1 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"found {text}, wanted 0.1 to 86400 seconds")
    return seconds
