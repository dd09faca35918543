"""Everything an exception would show to a log that prints local variables too."""

from __future__ import annotations

import traceback
from pathlib import Path

from dicom_secure_node import pki


def everything_said(error: BaseException) -> str:
    """Return an exception's text, its causes' and every local variable of frames not the tests'."""
    said = []
    seen: BaseException | None = error
    while seen is not None:
        said += [str(seen), repr(seen)]
        for frame, _ in traceback.walk_tb(seen.__traceback__):
            file = Path(frame.f_code.co_filename)
            if Path(pki.__file__).parents[1] in file.parents or "site-packages" in file.parts:
                said += map(_shown, frame.f_locals.values())
        seen = seen.__cause__ or seen.__context__
    return "\n".join(said)


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as exc:  # python-pkcs11's keys, when their session is over
        return repr(exc)
