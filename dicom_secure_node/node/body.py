"""Bodies for an application that keeps the data set itself."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO, cast

from pynetdicom.dimse_messages import DIMSEMessage


class ApplicationBody:
    """The data set as pynetdicom collects it for an application's own EVT_C_STORE handler.

    pynetdicom keeps it in memory, or in a temporary file when the application has switched
    ``STORE_RECV_CHUNKED_DATASET`` on. This class only looks at it for the gates.

    Parameters
    ----------
    message : DIMSEMessage
        The C-STORE-RQ being received.
    """

    def __init__(self, message: DIMSEMessage) -> None:
        self.size = 0
        self._data_set = message.data_set or io.BytesIO()
        self._file: Any = cast(Any, message._data_set_file)
        self._start: int = self._file.tell() if self._file else 0

    def write(self, data: memoryview, /) -> None:
        """Count the bytes; pynetdicom has them."""
        self.size += len(data)

    def open(self) -> BinaryIO:
        """Return a reader at the first byte of the data set."""
        if self._file is None:
            return io.BytesIO(self._data_set.getbuffer())
        reader = Path(self._file.name).open("rb")  # noqa: SIM115 - the caller closes it
        reader.seek(self._start)
        return reader

    def abandon(self) -> None:
        """Remove pynetdicom's temporary file where no handler ever got to see it."""
        if self._file is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)
