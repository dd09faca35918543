"""``audit view``: read-only pages over what `audit collect` keeps."""

from __future__ import annotations

import argparse
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_secure_node import commands
from dicom_secure_node.commands.audit_collect import add_place, settings_of
from dicom_secure_node.commands.foreground import Signals, log_to_stderr
from dicom_secure_node.errors import ConfigurationError, MissingExtra

if TYPE_CHECKING:
    from dicom_secure_node.audit_web.building import Running, View

logger = logging.getLogger("dicom_secure_node.audit.view")

DEFAULT_PORT = 8443
_PACKAGES = ("starlette", "jinja2", "uvicorn")

_EXAMPLES = """examples:
  dicom-secure-node user add --home audit-repository --file viewers.toml grace
  dicom-secure-node audit view --home audit-repository
  dicom-secure-node audit view --config collect.toml --users viewers.toml --host 0.0.0.0
"""


def add_action(actions: commands.Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``view``."""
    parser = actions.add_parser(
        "view",
        help="serve pages to read what was collected",
        description="Serve read-only pages over the records of `audit collect`: HTTPS, for the "
        "users in viewers.toml. Every look is itself recorded (Audit Log Used, PS3.15 A.5.3.2).",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_place(parser)
    # Of their own names: --host and --port of a repository's file are the collector's.
    parser.add_argument(
        "--host",
        dest="web_host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="listen there (default 127.0.0.1)",
    )
    parser.add_argument(
        "--port",
        dest="web_port",
        type=int,
        default=DEFAULT_PORT,
        metavar="N",
        help=f"0 takes a free one (default {DEFAULT_PORT})",
    )
    parser.add_argument(
        "--users", type=Path, metavar="FILE", help="who may look (default HOME/viewers.toml)"
    )
    parser.add_argument(
        "--credential",
        type=Path,
        action="append",
        metavar="FILE",
        help="certificate and key without ending, repeatable (default: the collector's)",
    )
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        help="a host name browsers use that is not in the certificate, repeatable",
    )
    parser.add_argument(
        "--report-to",
        metavar="HOST:PORT",
        help="the repository that is told who looked (default: the one shown)",
    )
    parser.add_argument(
        "--trail",
        type=Path,
        metavar="DIR",
        help="folder where it is kept who looked (default: view-trail beside the log)",
    )
    parser.add_argument(
        "--idle-minutes", type=float, default=15, metavar="N", help="log out after (default 15)"
    )
    parser.add_argument("--verbose", action="store_true", help="log more")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM (0) or ctrl-C (130)."""
    log_to_stderr(args.verbose)
    settings = _settings(args)
    signals = Signals()
    pages = _running(settings)
    try:

        def ready() -> bool:
            logger.info("listening on %s", pages.url)
            return not signals.arrived

        pages.serve(ready)
        logger.info("stopping")
    finally:
        pages.close()
    number = signals.wait()
    logger.info("stopped")
    return commands.INTERRUPTED if number == signal.SIGINT else commands.DONE


def _running(settings: View) -> Running:
    from dicom_secure_node.audit_web.building import Running

    return Running(settings)


def _settings(args: argparse.Namespace) -> View:
    try:
        from dicom_secure_node.audit_web.building import View
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] in _PACKAGES:
            raise MissingExtra("audit view", "audit-web") from exc
        raise
    of_log = settings_of(args)
    if not of_log.folder.is_dir():
        raise ConfigurationError("no such folder; audit collect makes it", str(of_log.folder))
    users = args.users or args.home / "viewers.toml"
    if not users.exists():
        raise ConfigurationError(
            "no such file; make it with: dicom-secure-node user add --home "
            f"{users.parent} --file {users.name} NAME",
            str(users),
        )
    if not 0 <= args.web_port <= 65_535:
        raise ConfigurationError(f"found {args.web_port}, wanted 0 to 65535", "--port")
    if not 0 < args.idle_minutes <= 480:
        raise ConfigurationError(f"found {args.idle_minutes:g}, wanted 1 to 480", "--idle-minutes")
    return View(
        folder=of_log.folder,
        index=of_log.index,
        users=users,
        credential=of_log.credential,
        trust=of_log.trust,
        trail=args.trail or of_log.folder.parent / "view-trail",
        report_to=_target(args.report_to, of_log.port),
        host=args.web_host,
        port=args.web_port,
        names=tuple(args.name),
        idle_seconds=args.idle_minutes * 60,
    )


def _target(given: str | None, port: int) -> tuple[str, int]:
    if given is None:
        return "127.0.0.1", port
    host, _, number = given.rpartition(":")
    if not (host and number.isdecimal() and 0 < int(number) <= 65_535):
        raise ConfigurationError(f"found {given!r}, wanted HOST:PORT", "--report-to")
    return host.strip("[]"), int(number)
