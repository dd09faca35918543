"""Fuzz what peers send with atheris: ``python .ci/fuzz_upper_layer.py TARGET [LIBFUZZER OPTIONS]``.

TARGET is one of ``streams``, ``requests``, ``messages``, ``commands``. A folder named as an option
takes the inputs that reach something new; ``tests/fuzz/corpus`` is read and left as it is.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))

with atheris.instrument_imports(
    include=["dicom_secure_node.node", "pynetdicom.pdu", "pynetdicom.dimse", "pynetdicom.acse"]
):
    from tests.fuzz.fuzz_upper_layer import CORPUS, TARGETS


def main() -> None:
    """Fuzz one target until told otherwise."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: fuzz_upper_layer.py {{{','.join(TARGETS)}}} [LIBFUZZER OPTIONS]")
    target, options = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        # libFuzzer writes to the first folder it is given.
        folders = [one for one in options if Path(one).is_dir()] or [folder]
        rest = [one for one in options if one not in folders]
        atheris.Setup(
            [sys.argv[0], "-rss_limit_mb=512", *rest, *folders, str(CORPUS / target)],
            TARGETS[target],
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
