"""Write a folder of good and odd certificates for trials by hand with openssl or DCMTK.

Run it from the root of the repository::

    python -m certs.make_test_pki certs/out

The certificates are those of the automatic tests (`tests.certs`), new at each run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.certs import ODD, Ca


def write_all(folder: Path) -> None:
    """Write every certificate, key and CRL into `folder`, which is made if absent."""
    ca = Ca()
    ca.anchor(folder / "ca.crt")
    ca.write(folder, "node", key="rsa")
    ca.write(folder, "node-ec")
    ca.write(folder, "node-ec384", key="ec384")
    ca.write(folder, "client", key="rsa", usage="client")
    for name, odd in ODD.items():
        ca.write(folder, name, **odd)

    revoked = ca.write(folder, "revoked")
    ca.crl(folder / "ca.crl", revoked=[revoked])
    ca.crl(folder / "ca-out-of-date.crl", revoked=[revoked], expired=True)

    middle = ca.intermediate()
    middle.anchor(folder / "intermediate.crt")
    middle.crl(folder / "intermediate.crl")
    middle.write(folder, "below-intermediate")
    ca.intermediate("Test Impostor", ca_flag=False).write(folder, "issuer-is-no-ca")

    other = Ca("Other CA")
    other.anchor(folder / "other-ca.crt")
    other.crl(folder / "other-ca.crl")
    other.write(folder, "unknown-issuer")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder named on the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="make_test_pki", description="Write odd certificates.")
    parser.add_argument("folder", type=Path, help="where to, e.g. certs/out")
    folder: Path = parser.parse_args(argv).folder
    write_all(folder)
    sys.stdout.write(f"{len(list(folder.glob('*.crt')))} certificates in {folder}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
