"""The command line: one small module per verb, one frame around them.

A verb's module has ``add_parser(subparsers)``, which adds one parser named like the verb, and
``run(args) -> int``. It raises the package's errors; this frame turns each into one line on stderr
and an exit code:

== ===============================================================================
0  done, all good
1  a definite negative: refused, invalid, a check failed (also a fault of our own)
2  usage or configuration error, missing file
3  a service we need is unavailable; nothing was decided
== ===============================================================================

Ctrl-C ends with 130.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Protocol, cast

from dicom_secure_node import errors
from dicom_secure_node.commands.output import one_line

PROGRAM = "dicom-secure-node"
VERBS = (
    "serve",
    "status",
    "send",
    "echo",
    "pki",
    "user",
    "access",
    "config",
    "audit",
    "archive",
    "sign",
    "verify",
)

DONE = 0
NEGATIVE = 1
USAGE = 2
UNAVAILABLE = 3
INTERRUPTED = 130

Subparsers = argparse._SubParsersAction  # argparse gives the type no public name


class Verb(Protocol):
    """What the module of a verb offers."""

    def add_parser(self, subparsers: Subparsers[argparse.ArgumentParser]) -> None:
        """Add the verb's parser, with ``--help`` that shows an example."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it and return the exit code."""


def build_parser(words: Sequence[str]) -> tuple[argparse.ArgumentParser, dict[str, Verb]]:
    """Return the parser for a command line, and the modules of the verbs in it by name.

    Only the verb that `words` begins with is imported: most need neither the network nor an index.
    All are when it begins with none, so that ``--help`` can list them.
    """
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Everything DICOM PS3.15 asks of a node.",
        epilog="Exit codes: 0 done, 1 a definite negative, 2 usage or configuration, "
        "3 a service we need is unavailable. With --debug an error shows its traceback.",
    )
    version = importlib.metadata.version(PROGRAM)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    verbs = (words[0],) if words and words[0] in VERBS else VERBS
    modules = {name: cast(Verb, importlib.import_module(f"{__name__}.{name}")) for name in verbs}
    for module in modules.values():
        module.add_parser(subparsers)
    return parser, modules


def exit_code(error: BaseException) -> int:
    """Return the exit code an error stands for (the table at the top of this module)."""
    match error:
        case KeyboardInterrupt():
            return INTERRUPTED
        case errors.ConfigurationError():
            return USAGE
        case errors.ServiceUnavailable():
            return UNAVAILABLE
        case errors.SecureNodeError():
            return NEGATIVE
        case FileNotFoundError() | IsADirectoryError() | NotADirectoryError() | PermissionError():
            return USAGE
        case OSError():
            return UNAVAILABLE
    return NEGATIVE


def explain(error: BaseException) -> str:
    """Return the error in one line: what was found, what was wanted, and where."""
    if isinstance(error, errors.SecureNodeError):
        return one_line(str(error))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return one_line(f"{where}{error.strerror or error}")
    # The text of a fault of our own could hold anything, a secret included: not without --debug.
    return f"{type(error).__name__}: this should not happen; run again with --debug"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after the program's name; those of the process when left out.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if debug:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("dicom_secure_node").setLevel(logging.DEBUG)
    try:
        parser, modules = build_parser(words)
        args = parser.parse_args(words)
        code = modules[args.verb].run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output has gone (| head). Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NEGATIVE
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"{PROGRAM}: error: {explain(error)}\n")
        return exit_code(error)
