"""The pages from their settings: store, users, trail and TLS put together."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dicom_secure_node.audit.collecting.store import RecordStore
from dicom_secure_node.audit.messages import AuditSource
from dicom_secure_node.audit.trail import AuditTrail
from dicom_secure_node.audit.transport import Repository
from dicom_secure_node.audit_web.application import Viewer
from dicom_secure_node.audit_web.entry import Entry
from dicom_secure_node.audit_web.guard import Guard
from dicom_secure_node.audit_web.reporting import APPLICATION, Reports
from dicom_secure_node.audit_web.server import Server, bound, tls_context
from dicom_secure_node.audit_web.sessions import Sessions
from dicom_secure_node.errors import ConfigurationError, InvalidCertificate, ServiceUnavailable
from dicom_secure_node.identity.lockout import LockingBackend, Lockout
from dicom_secure_node.identity.passcodes import PasscodeBackend
from dicom_secure_node.identity.userfile import UserFile
from dicom_secure_node.pki.credential import load_credential_base
from dicom_secure_node.pki.names import subject_alternatives
from dicom_secure_node.pki.trust import load_trust
from dicom_secure_node.tls.context import ClientContext
from dicom_secure_node.tls.profiles import profile_named

logger = logging.getLogger(__name__)

_WEB_SERVER = "3"  # A.5.1.2.1: web server process tier


@dataclass(frozen=True)
class View:
    """What the pages are told.

    Attributes
    ----------
    folder : Path
        Of the repository's log.
    index : str
        As for `RecordStore`.
    users : Path
        The users file of those who may look.
    credential : tuple of Path
        Certificate and key for HTTPS without their endings; the first one is also shown to the
        repository.
    trust : tuple of Path
        Whose repository is believed.
    trail : Path
        Folder for the pages' own audit messages.
    report_to : (str, int)
        Host and port of the repository that gets them.
    host, port
        Where to listen; port 0 takes a free one.
    names : tuple of str
        Further names by which browsers may call us, beside those in the certificate.
    idle_seconds, session_seconds : float
        A session's end without a request, and at all.
    """

    folder: Path
    index: str
    users: Path
    credential: tuple[Path, ...]
    trust: tuple[Path, ...]
    trail: Path
    report_to: tuple[str, int]
    host: str = "127.0.0.1"
    port: int = 8443
    names: tuple[str, ...] = ()
    idle_seconds: float = 900.0
    session_seconds: float = 8 * 3600.0


class Running:
    """The pages, bound to a port and ready to be served.

    Raises
    ------
    ConfigurationError
        A file cannot be used.
    ServiceUnavailable
        The port is taken, or another process uses the folder of the trail.
    """

    def __init__(self, settings: View) -> None:
        self._settings = settings
        self._context = tls_context(settings.credential)
        users = UserFile(settings.users)
        if not users.users.rows:
            raise ConfigurationError("there are no users in it", str(settings.users))
        backend = PasscodeBackend(settings.users)
        self._socket = bound(settings.host, settings.port)
        try:
            self._trail = _trail(settings)
        except BaseException:
            self._socket.close()
            raise
        self._reports = Reports(self._trail)
        lockout = Lockout()
        locking = LockingBackend(backend, lockout, self._reports.locked)
        sessions = Sessions(settings.idle_seconds, settings.session_seconds)
        doors = Entry(locking, lockout, users, sessions, self._reports)
        viewer = Viewer(partial(RecordStore, settings.folder, settings.index), doors, self._reports)
        self._pages = Guard(viewer.pages(), _names(settings))

    @property
    def port(self) -> int:
        """Return the port."""
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        """Return where the pages are."""
        host = self._settings.host
        return f"https://{f'[{host}]' if ':' in host else host}:{self.port}"

    def serve(self, ready: Callable[[], bool]) -> None:
        """Serve until a signal; `ready` is called first and returns whether to begin."""
        self._trail.start()
        self._reports.started()
        server = Server(self._pages, self._context, ready)
        server.run(sockets=[self._socket])

    def close(self) -> None:
        """Report the stop and let everything go."""
        self._socket.close()
        try:
            self._reports.stopped()
        except ServiceUnavailable as exc:
            logger.error("the stop could not be reported: %s", exc)
        self._trail.stop()


def _trail(settings: View) -> AuditTrail:
    host, port = settings.report_to
    try:
        context = ClientContext(
            replace(profile_named("8996"), alpn=b""),  # "dicom" is not what is spoken
            load_credential_base(settings.credential[0]),
            load_trust(settings.trust),
        )
    except (InvalidCertificate, OSError) as exc:
        raise ConfigurationError(str(exc), "audit view") from exc
    target = Repository("repository", host, port, context=context)
    source = AuditSource(socket.gethostname(), type_code=_WEB_SERVER)
    return AuditTrail(settings.trail, source, [target], application=APPLICATION.replace(" ", "-"))


def _names(settings: View) -> set[str]:
    """Return by which names browsers may call us."""
    names = {"localhost", "127.0.0.1", "::1", settings.host, *settings.names}
    for base in settings.credential:
        found = subject_alternatives(load_credential_base(base).certificate)
        names |= {*found.dns, *map(str, found.addresses)}
    return {name.lower().rstrip(".") for name in names}
