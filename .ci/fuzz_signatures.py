"""Fuzz the verifier with atheris, by hand: ``python .ci/fuzz_signatures.py [LIBFUZZER OPTIONS]``.

The extra ``test`` has atheris. A folder named as an option keeps the corpus.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))

with atheris.instrument_imports(include=["dicom_secure_node"]):
    from tests.fuzz.fuzz_signatures import one_input

atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
