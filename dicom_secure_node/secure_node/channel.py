"""Calls from a worker process to its supervisor.

A worker has a few pipes, each for one call at a time, and the supervisor a thread at the other end
of each. A call is a name and plain values; the names are those of a table and no others.

Rules, in order:

1. What arrives is read as far as `LONGEST` and made of the types in `_TYPES` only: a worker holds
   what strangers sent, and may not make its supervisor build anything else.
2. What cannot be read, or is longer, ends the pipe. Whoever sent it is out of order.
3. Our own errors come back as what they are. Any other is logged here, and comes back as
   `ServiceUnavailable`.
4. When the supervisor is gone every call ends at once with `ServiceUnavailable`, so that whoever
   asked refuses.
"""

from __future__ import annotations

import io
import logging
import pickle
import queue
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from multiprocessing.connection import Connection
from typing import Any, ClassVar

from dicom_secure_node import errors
from dicom_secure_node.audit.messages import AuditMessage, Participant
from dicom_secure_node.audit.model import ParticipantObject
from dicom_secure_node.errors import SecureNodeError, ServiceUnavailable
from dicom_secure_node.spec.audit import Code

logger = logging.getLogger(__name__)

Call = Callable[..., object]

LONGEST = 1 << 20  # bytes; an audit message has at most some 32 KiB
SERVICE = "supervisor process"

_OURS = [
    one
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, SecureNodeError)
]
_AUDIT = [AuditMessage, Participant, ParticipantObject, Code, datetime, timedelta, timezone]
_BUILDERS: Sequence[Any] = [*_OURS, *_AUDIT, errors._again]
_TYPES = {(one.__module__, one.__qualname__): one for one in _BUILDERS}
_INSTANCES = (AuditMessage, Participant, ParticipantObject, Code)  # whose state is set once made


class Channel:
    """A worker's end; may be shared by threads, each call waits for a pipe that is free.

    Parameters
    ----------
    pipes : sequence of Connection
    """

    def __init__(self, pipes: Sequence[Connection]) -> None:
        # The one used last comes first: where few threads call, few pipes are used.
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue()
        for pipe in pipes:
            self._idle.put(pipe)

    def call(self, name: str, *values: object) -> Any:
        """Return what the supervisor answers.

        Raises
        ------
        ServiceUnavailable
            There is no answer to be had.
        SecureNodeError
            What the call led to.
        """
        question = pickle.dumps((name, values))
        if len(question) > LONGEST:
            raise ServiceUnavailable(SERVICE, f"{name}: {len(question)} bytes are too long a call")
        pipe = self._idle.get()
        try:
            pipe.send_bytes(question)
            answer, error = pickle.loads(pipe.recv_bytes())  # noqa: S301 - of our supervisor
        except (OSError, EOFError) as exc:
            pipe.close()
            raise ServiceUnavailable(SERVICE, "is gone") from exc
        finally:
            self._idle.put(pipe)  # closed or not: who comes next must not wait for ever
        if error is not None:
            raise error
        return answer


def answer(pipe: Connection, table: Mapping[str, Call]) -> None:
    """Answer the calls that come in by one pipe, until it ends; for a thread of its own.

    Parameters
    ----------
    pipe : Connection
        The supervisor's end.
    table : mapping of str to callable
        What may be called.
    """
    with pipe:
        while True:
            try:
                question = pipe.recv_bytes(LONGEST)
            except EOFError:
                return
            except OSError as exc:
                logger.error("a worker's call cannot be read: %s", exc.strerror or exc)
                return
            try:
                name, values = _read(question)
            except Exception as exc:
                logger.error("a worker's call makes no sense: %s", type(exc).__name__)
                return
            try:
                pipe.send_bytes(pickle.dumps(_answer(table.get(name), name, values)))
            except OSError:
                return  # the worker has gone


def _read(question: bytes) -> tuple[str, tuple[Any, ...]]:
    name, values = _Reader(io.BytesIO(question)).load()
    if not isinstance(name, str) or not isinstance(values, tuple):
        raise pickle.UnpicklingError("not a call")
    return name, values


def _answer(
    call: Call | None, name: str, values: tuple[Any, ...]
) -> tuple[object, BaseException | None]:
    if call is None:
        logger.error("a worker called %r, which is not for workers", name[:40])
        return None, ServiceUnavailable(SERVICE, "no such call")
    try:
        return call(*values), None
    except SecureNodeError as exc:
        return None, exc
    except Exception:
        logger.exception("a worker's call %r failed", name)
        return None, ServiceUnavailable(SERVICE, f"{name} failed")


class _Reader(pickle._Unpickler):
    """Makes nothing but what `_TYPES` lists, and changes none of that.

    The reader in C could be told to set attributes of a class, and to make room for four thousand
    million values by a number of four bytes.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _TYPES[module, name]
        except KeyError:
            raise pickle.UnpicklingError("a type that is not for calls") from None

    def _build(self: Any) -> None:
        if not isinstance(self.stack[-2], _INSTANCES):
            raise pickle.UnpicklingError("state for what has none")
        self.load_build()

    dispatch[pickle.BUILD[0]] = _build
