"""``audit collect``: be an audit record repository."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from dataclasses import replace
from pathlib import Path

from dicom_secure_node import commands
from dicom_secure_node.audit.collecting.settings import Collect
from dicom_secure_node.commands.foreground import Signals, log_to_stderr
from dicom_secure_node.config import load_as
from dicom_secure_node.pki.authority import LocalAuthority, local_hosts
from dicom_secure_node.secure_node.collecting import CollectFile, collector

logger = logging.getLogger("dicom_secure_node.audit.collect")

DEFAULT_HOME = Path("audit-repository")

_EXAMPLES = """examples:
  dicom-secure-node audit collect --home audit-repository --udp-port 5514
  dicom-secure-node audit collect --credential pki/arr --trust pki/ca.crt --folder /srv/audit
  dicom-secure-node audit collect --config collect.toml
"""


def add_action(actions: commands.Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``collect``."""
    parser = actions.add_parser(
        "collect",
        help="be an audit record repository: receive and keep everybody's messages",
        description="Receive audit messages over TLS (RFC 5425) and, if told to, UDP (RFC 5426); "
        "keep them as they came, judged, in a log that shows every change. Without --config and "
        "--credential, make a CA and credentials below --home first.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_place(parser)
    parser.add_argument("--host", metavar="ADDRESS", help="listen there (default 0.0.0.0)")
    parser.add_argument(
        "--port", type=int, metavar="N", help="for TLS; 0 takes a free one (default 6514)"
    )
    parser.add_argument("--udp-port", type=int, metavar="N", help="for UDP (default: no UDP)")
    for name, words in (
        ("credential", "certificate and key without ending, repeatable (default HOME/pki/node)"),
        ("trust", "whose senders may connect, repeatable (default HOME/pki/ca.crt)"),
        ("crl", "revocation list, repeatable"),
    ):
        parser.add_argument(f"--{name}", type=Path, action="append", metavar="FILE", help=words)
    parser.add_argument(
        "--keep-days", type=float, metavar="N", help="delete what is older (default: nothing is)"
    )
    parser.add_argument("--verbose", action="store_true", help="log more")


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where a repository is."""
    parser.add_argument(
        "--home",
        type=Path,
        default=DEFAULT_HOME,
        metavar="DIR",
        help="folder for everything (default ./audit-repository)",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a file with the table [collect]"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="folder of the log (default HOME/collected)"
    )
    parser.add_argument(
        "--index", metavar="URL", help="postgresql://... (default: SQLite in the log's folder)"
    )


def settings_of(args: argparse.Namespace) -> Collect:
    """Return the settings: those of the file or the home, and options on top."""
    home: Path = args.home
    if args.config is not None:
        settings = load_as(CollectFile, args.config).collect
    else:
        plain = Collect()
        settings = replace(
            plain,
            credential=tuple(home / path for path in plain.credential),
            trust=tuple(home / path for path in plain.trust),
            folder=home / plain.folder,
        )
    names = ("host", "port", "udp_port", "folder", "index", "keep_days")
    given = {name: getattr(args, name, None) for name in names}
    for name in ("credential", "trust", "crl"):
        found = getattr(args, name, None)
        given[name] = tuple(found) if found else None
    return replace(settings, **{name: value for name, value in given.items() if value is not None})


def run(args: argparse.Namespace) -> int:
    """Collect until SIGTERM (0) or ctrl-C (130)."""
    log_to_stderr(args.verbose)
    settings = settings_of(args)
    if args.config is None and not args.credential:
        _make_credentials(args.home)
    signals = Signals()
    running = collector(settings)
    try:
        running.start()
        where = f"{settings.host}:{running.port}"
        udp = f", UDP on {running.udp_port}" if running.udp_port is not None else ""
        logger.info(
            "listening on %s (TLS profile %s, client certificate: %s)%s",
            where,
            settings.profile,
            settings.client_certificate,
            udp,
        )
        number = signals.wait()
        logger.info("stopping")
    finally:
        running.stop()
    logger.info("stopped")
    return commands.INTERRUPTED if number == signal.SIGINT else commands.DONE


def _make_credentials(home: Path) -> None:
    """Make a CA, a credential for the repository and one for a sender, unless they are there."""
    pki = home / "pki"
    if (pki / "node.crt").exists():
        return
    LocalAuthority(pki).equip(local_hosts())
    sys.stdout.write(f"made credentials in {pki}: senders use client.crt, client.key, ca.crt\n")
    sys.stdout.flush()
