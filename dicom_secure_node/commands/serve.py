"""``serve``: run the node until told to stop."""

from __future__ import annotations

import argparse
import functools
import getpass
import logging
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, sop_class

from dicom_secure_node import commands
from dicom_secure_node.commands.foreground import Signals, keep_memory_together, log_to_stderr
from dicom_secure_node.commands.home import DEFAULT_HOME, make_home
from dicom_secure_node.config import PLAIN, NodeConfig, Services, load
from dicom_secure_node.errors import ConfigurationError, ServiceUnavailable
from dicom_secure_node.secure_node import SecureNode
from dicom_secure_node.secure_node.supervisor import Supervisor
from dicom_secure_node.secure_node.watching import Watch, server_class

logger = logging.getLogger("dicom_secure_node.serve")

_WORKER = "dicom_secure_node.commands.serve_worker"
_VERIFICATION = "1.2.840.10008.1.1"  # PS3.4 Annex A


def add_parser(subparsers: commands.Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``serve``."""
    parser = subparsers.add_parser(
        "serve",
        help="run the node",
        description="Run the node. Without a configuration, make a home first: a local CA, "
        "credentials, node.toml, archive and audit store.",
        epilog="Example: dicom-secure-node serve --home secure-node --port 2762",
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=DEFAULT_HOME,
        metavar="DIR",
        help="folder of the node (default: ./secure-node)",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="configuration (default: HOME/node.toml)"
    )
    parser.add_argument(
        "--port", type=int, metavar="N", help="port of the first listener; 0 takes a free one"
    )
    parser.add_argument("--verbose", action="store_true", help="log more")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM (0) or ctrl-C (130)."""
    keep_memory_together()
    log_to_stderr(args.verbose)
    if args.config is None and make_home(args.home, args.port):
        sys.stdout.write(f"made a new home in {args.home}\n")
    config = _configuration(args)
    if config.metrics.port:
        server_class()
    signals = Signals()
    node, listen = _node(config, args.verbose)
    watch = Watch(node.status, _folder(args), config.metrics)
    try:
        watch.start()
        try:
            ports = listen()
        except OSError as exc:
            where = ", ".join(f"{one.host}:{one.port}" for one in config.listener)
            raise ServiceUnavailable(f"listener {where}", exc.strerror or str(exc)) from exc
        for what in node.describe():
            logger.info("%s", what)
        for table, port in zip(config.listener, ports, strict=True):
            if table is config.listener[0]:
                _show_how_to_send(args.home, table.profile, port)
            protection = "no TLS" if table.profile == PLAIN else f"TLS profile {table.profile}"
            logger.info("listening on %s:%d (%s, %s)", table.host, port, table.label, protection)
        number = signals.wait()
        logger.info("stopping")
    finally:
        cut_off = node.stop()
        watch.stop()
    if cut_off:
        logger.warning("%d associations were cut off", cut_off)
    logger.info("stopped")
    return commands.INTERRUPTED if number == signal.SIGINT else commands.DONE


def _node(
    config: NodeConfig, verbose: bool
) -> tuple[SecureNode | Supervisor, Callable[[], list[int]]]:
    """Return the node, and what makes it listen and returns its ports."""
    ask = _ask if sys.stdin.isatty() else None
    ae = application_entity(config)  # its settings may be wrong: better now than in a worker
    if config.node.workers > 1:
        supervisor = Supervisor(config, functools.partial(_launch, verbose), ask)
        return supervisor, supervisor.listen
    node = SecureNode(config, ask_passphrase=ask)
    return node, lambda: [int(server.server_address[1]) for server in node.listen(ae)]


def _launch(verbose: bool, descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a worker, which finds its modules where this process does (-P: and nowhere else)."""
    paths = [path or str(Path.cwd()) for path in sys.path]
    words = ["--verbose"] if verbose else []
    return subprocess.Popen(  # noqa: S603 - a module of ours
        [sys.executable, "-P", "-m", _WORKER, *words, *map(str, descriptors)],
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        process_group=0,  # ctrl-C is for the first process alone
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def application_entity(config: NodeConfig) -> Any:
    """Return the node's application entity: verification and storage (PS3.4 Annexes A, B)."""
    ae = AE(ae_title=config.node.ae_title)
    ae.maximum_associations = config.limits.connections
    ae.add_supported_context(_VERIFICATION)
    for uid in storage_classes(config.services):
        ae.add_supported_context(uid, ALL_TRANSFER_SYNTAXES)
    return ae


def storage_classes(services: Services) -> list[str]:
    """Return the UIDs of the SOP classes to accept for storage.

    Raises
    ------
    ConfigurationError
        A keyword names no SOP class.
    """
    if services.storage == ("all",):
        named = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    else:
        named = [_uid(name) for name in services.storage]
    return list(dict.fromkeys([*named, *services.private_sop_classes]))


def _uid(name: str) -> str:
    if name[0].isdigit():
        return name
    uid = getattr(sop_class, name, None)
    if uid is None:
        raise ConfigurationError(f"found {name!r}, no such SOP class", "services.storage")
    return str(uid)


def _folder(args: argparse.Namespace) -> Path:
    """Return where `status` looks for us: the home, or the folder of a file from elsewhere."""
    home: Path = args.home
    elsewhere = args.config is not None and (home == DEFAULT_HOME or not home.is_dir())
    return Path(args.config).parent if elsewhere else home


def _configuration(args: argparse.Namespace) -> NodeConfig:
    config = load(args.config or args.home / "node.toml")
    if args.port is None:
        return config
    first, *others = config.listener
    return replace(config, listener=(replace(first, port=args.port), *others))


@functools.cache
def _ask(listener: str) -> bytes:
    """Ask for the passphrase of a listener's keys, once; a reload uses it again."""
    return getpass.getpass(f"Passphrase of the keys of listener {listener}: ").encode()


def _show_how_to_send(home: Path, profile: str, port: int) -> None:
    """Print the commands that send this node a file, ours and DCMTK's."""
    pki = home / "pki"
    if profile == PLAIN:
        ours, dcmtk = "--plain", []
    else:
        if not (pki / "client.crt").exists():
            return
        ours = f"--credential {shlex.quote(str(pki))}"
        dcmtk = ["+tls", str(pki / "client.key"), str(pki / "client.crt")]
        dcmtk += ["+cf", str(pki / "ca.crt")]
    sys.stdout.write(
        "To try it:\n"
        f"  {_program()} echo 127.0.0.1 {port} {ours}\n"
        f"  {_program()} send 127.0.0.1 {port} {ours} FILE.dcm\n"
        f"  /usr/bin/storescu {shlex.join([*dcmtk, '127.0.0.1', str(port)])} FILE.dcm\n"
    )
    sys.stdout.flush()


def _program() -> str:
    """Return how this program was started, to be typed again."""
    if Path(sys.argv[0]).name == commands.PROGRAM:
        return shlex.quote(sys.argv[0])
    return f"{shlex.quote(sys.executable)} -m dicom_secure_node"
