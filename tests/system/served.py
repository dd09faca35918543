"""A verb that runs until it is told to stop, as a process of its own."""

from __future__ import annotations

import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests import parts


class Served(ABC):
    """One process, its log, and its end.

    Parameters
    ----------
    log_file : Path
        Takes what it says on stderr, start after start.
    """

    def __init__(self, log_file: Path) -> None:
        self.log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def launch(
        self,
        argv: Sequence[str],
        ready: Callable[[], object],
        what: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, and return once it is ready."""
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=env
            )

        def there() -> object:
            assert self._process is not None
            code = self._process.poll()
            assert code is None, f"it ended with {code}\n{self.log}"
            return ready()

        try:
            # As long as several processes take to load on a machine that is busy with others.
            parts.wait_until(there, what, seconds=60)
        except BaseException:
            self.kill()
            print(self.log)
            raise

    @property
    def pid(self) -> int:
        """Process id while it runs."""
        assert self._process is not None, "not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Ask it to end and return its exit code; 0 where it does not run."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def kill(self) -> None:
        """End it at once, as a power cut would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def log(self) -> str:
        """What it has logged, of all starts."""
        return self.log_file.read_bytes().decode("utf-8") if self.log_file.exists() else ""

    @property
    def log_now(self) -> str:
        """What it has logged since the last start."""
        if not self.log_file.exists():
            return ""
        return self.log_file.read_bytes()[self._log_start :].decode(errors="replace")

    @abstractmethod
    def start(self) -> Self:
        """Start it and return once it is ready."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        code = self.stop()
        if error is not None:
            print(self.log)
            return
        assert code == 0, self.log
        assert "Traceback" not in self.log
