"""The pages. Each is for those who are logged in, and each look is reported before it is shown."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from dicom_secure_node.audit.collecting.records import Filter, Record
from dicom_secure_node.audit.collecting.store import RecordStore
from dicom_secure_node.audit_web import answers, entry, export, finding, message, plot, showing
from dicom_secure_node.audit_web.entry import Entry
from dicom_secure_node.audit_web.question import (
    FIELDS,
    OUTCOMES,
    TIMES,
    Question,
    number,
    understood,
)
from dicom_secure_node.audit_web.reporting import Reports
from dicom_secure_node.audit_web.sessions import Session
from dicom_secure_node.errors import (
    IdentityRefused,
    InvalidInput,
    LimitReached,
    SecureNodeError,
    ServiceUnavailable,
)

logger = logging.getLogger(__name__)

PAGE = 50  # records
RANGES = {
    "hour": ("last hour", timedelta(hours=1)),
    "day": ("last 24 hours", timedelta(days=1)),
    "week": ("last 7 days", timedelta(days=7)),
    "month": ("last 30 days", timedelta(days=30)),
    "year": ("last 365 days", timedelta(days=365)),
}
_FINDERS = {"/": finding.matching, "/failures": finding.troubles}
_READERS = 4  # questions asked of the store at a time
_LOGINS = 2
_EXPORTS = 2

T = TypeVar("T")
Page = Callable[[Request, Session], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Look:
    """Who looks at what: what a report says of it."""

    user: str
    address: str
    uri: str


class Viewer:
    """The pages over one store.

    Parameters
    ----------
    store : callable
        Opens the store for reading; each question has one of its own.
    doors : Entry
        Who is let in.
    reports : Reports
        Where looks are reported.
    clock : callable
        Returns the time, aware.
    """

    def __init__(
        self,
        store: Callable[[], RecordStore],
        doors: Entry,
        reports: Reports,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._entry = doors
        self._reports = reports
        self._clock = clock
        self._readers = ThreadPoolExecutor(_READERS, "audit-view")
        self._logins = ThreadPoolExecutor(_LOGINS, "audit-view-login")
        self._exports = asyncio.Semaphore(_EXPORTS)

    def pages(self) -> Starlette:
        """Return the pages as an application."""
        inside = self._inside
        routes = [
            Route("/style.css", answers.style),
            Route("/login", self._show_login, methods=["GET"]),
            Route("/login", self._login, methods=["POST"]),
            Route("/logout", inside(self._logout), methods=["POST"]),
            Route("/", inside(self._list)),
            Route("/failures", inside(self._list)),
            Route("/counts", inside(self._counts)),
            Route("/message/{number}", inside(self._message)),
            Route("/message/{number}/raw", inside(self._raw)),
            Route("/export/{name}.{kind}", inside(self._export)),
        ]
        handlers: dict[Any, Any] = {
            HTTPException: answers.http_error,
            SecureNodeError: answers.our_error,
            Exception: answers.fault,
        }
        return Starlette(routes=routes, exception_handlers=handlers)

    # --- In and out ---

    def _inside(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        """Wrap a page for those who are logged in."""

        async def guarded(request: Request) -> Response:
            session = self._entry.session(request)
            if session is not None:
                return await page(request, session)
            target = _path_and_query(request) if request.method == "GET" else "/"
            target = entry.own_page(target)
            query = f"?{urlencode({'next': target})}" if target != "/" else ""
            return RedirectResponse(f"/login{query}", 303)

        return guarded

    async def _show_login(self, request: Request) -> Response:
        if self._entry.session(request) is not None:
            return RedirectResponse("/", 303)
        return _login_form("", entry.own_page(request.query_params.get("next", "/")))

    async def _login(self, request: Request) -> Response:
        fields = await entry.form(request)
        target = entry.own_page(fields.get("next", "/"))
        token = fields.get("token", "")
        if not (entry.from_ourselves(request) and entry.same(token, entry.form_token(request))):
            return _login_form("That form was too old. Please try again.", target, 403)
        user, passcode = fields.get("user", ""), fields.get("passcode", "")
        verify = partial(self._entry.verify, user, passcode, _address(request))
        try:
            stamp = await _in(self._logins, verify)
        except IdentityRefused as exc:
            logger.info("login refused: %s", exc.reason)
            words = "Name or passcode is wrong, or there were too many attempts."
            return _login_form(words, target, 403)
        except LimitReached:
            return _login_form("Too much to do at the moment. Please try again.", target, 503)
        response = RedirectResponse(target, 303)
        self._entry.begin(request, response, user, stamp)
        return response

    async def _logout(self, request: Request, session: Session) -> Response:
        fields = await entry.form(request)
        token = fields.get("token", "")
        if not (entry.from_ourselves(request) and entry.same(token, session.token)):
            raise HTTPException(403)
        response = RedirectResponse("/login", 303)
        self._entry.end(request, response)
        await _in(self._readers, partial(self._reports.logged_out, session.user, _address(request)))
        return response

    # --- The log ---

    async def _list(self, request: Request, session: Session) -> Response:
        question = understood(request.query_params.multi_items())
        path = request.url.path
        a_day_ago = (self._clock() - timedelta(days=1)).replace(second=0, microsecond=0)

        def answer(store: RecordStore) -> str:
            find = _FINDERS[path]
            found = list(find(store, question.asked, before=question.before, limit=PAGE + 1))
            return showing.page(
                "list",
                session=session,
                path=path,
                words=_typed(question),
                query=question.query(),
                before=question.before,
                records=found[:PAGE],
                older=question.query(before=found[PAGE - 1].sequence) if found[PAGE:] else "",
                recent=_recent(store, a_day_ago),
                recent_query=urlencode({"since": f"{a_day_ago:%Y-%m-%dT%H:%M}"}),
                outcomes=OUTCOMES,
                status=store.status(),
            )

        return HTMLResponse(await self._look(request, session, answer))

    async def _message(self, request: Request, session: Session) -> Response:
        wanted = number(request.path_params["number"])

        def answer(store: RecordStore) -> str:
            record = _record(store, wanted)
            problems, count = message.explained(record.raw)
            header, lines = message.readable(record.raw)
            return showing.page(
                "message",
                session=session,
                path="",
                record=record,
                said=record.summary,
                problems=problems,
                count=count,
                header=header,
                lines=lines,
            )

        return HTMLResponse(await self._look(request, session, answer))

    async def _raw(self, request: Request, session: Session) -> Response:
        wanted = number(request.path_params["number"])
        octets = await self._look(request, session, lambda store: _record(store, wanted).raw)
        return Response(octets, 200, answers.download(f"message-{wanted}.syslog"), answers.OCTETS)

    async def _counts(self, request: Request, session: Session) -> Response:
        question = understood(request.query_params.multi_items())
        chosen = request.query_params.get("range", "day")
        if chosen not in RANGES:
            raise InvalidInput(repr(chosen[:40]), f"one of {', '.join(RANGES)}", "range")
        now = self._clock()
        until = question.asked.until or now
        since = question.asked.since or until - RANGES[chosen][1]
        if since >= until:
            raise InvalidInput("a time that is not before until", "an earlier one", "since")
        span = plot.span_for(since, until)

        def answer(store: RecordStore) -> str:
            asked = replace(question.asked, since=since, until=until)
            found = plot.bars(store.counts(asked, span), since, until, span)
            events = store.events(asked)
            times = {"since": f"{since:%Y-%m-%dT%H:%M:%S}", "until": f"{until:%Y-%m-%dT%H:%M:%S}"}
            return showing.page(
                "counts",
                session=session,
                path="/counts",
                words=_typed(question),
                outcomes=OUTCOMES,
                svg=plot.drawn(found),
                bars=[bar for bar in reversed(found) if bar.total],
                events=events,
                event_links={value: _with(question, times, event=value) for value, _ in events},
                ranges=RANGES,
                links={name: _without_times(question, range=name) for name in RANGES},
                chosen="" if "since" in question.words else chosen,
                since=since,
                until=until,
                span=plot.in_words(span),
            )

        return HTMLResponse(await self._look(request, session, answer))

    async def _export(self, request: Request, session: Session) -> Response:
        name, kind = request.path_params["name"], request.path_params["kind"]
        find = _FINDERS.get({"messages": "/", "failures": "/failures"}.get(name, ""))
        if find is None or kind not in export.FORMATS:
            raise HTTPException(404)
        question = understood(request.query_params.multi_items())
        if self._exports.locked():
            raise HTTPException(503)
        # Asks for one record at least, so that a store that cannot be read is no empty file.
        await self._look(request, session, lambda store: list(find(store, question.asked, limit=1)))
        write, media_type = export.FORMATS[kind]
        look = self._looked_at(request, session)

        def pieces() -> Generator[bytes, None, None]:
            with self._store() as store:
                try:
                    yield from write(find(store, question.asked, before=question.before))
                except ServiceUnavailable as exc:
                    self._report(look, f"export broke off: {exc}")
                    raise

        headers = answers.download(f"audit-{name}.{kind}")
        return StreamingResponse(self._streamed(pieces()), 200, headers, media_type)

    async def _streamed(self, pieces: Generator[bytes, None, None]) -> AsyncIterator[bytes]:
        # Who hangs up does so while a thread is at the next piece: closing has to wait for it.
        lock = threading.Lock()

        def step() -> bytes:
            with lock:
                return next(pieces, b"")

        def end() -> None:
            with lock:
                pieces.close()

        async with self._exports:
            try:
                while piece := await _in(self._readers, step):
                    yield piece
            finally:
                self._readers.submit(end)

    # --- Looking ---

    async def _look(
        self, request: Request, session: Session, answer: Callable[[RecordStore], T]
    ) -> T:
        """Return the answer to a question, once it is reported that it was asked.

        Raises
        ------
        ServiceUnavailable
            The store could not be asked, or the look not be reported.
        """
        look = self._looked_at(request, session)

        def work() -> T:
            try:
                with self._store() as store:
                    found = answer(store)
            except ServiceUnavailable as exc:
                self._report(look, f"not shown: {exc}")
                raise
            except HTTPException as exc:
                self._report(look, f"not shown: {exc.detail}")
                raise
            self._report(look)
            return found

        return await _in(self._readers, work)

    def _looked_at(self, request: Request, session: Session) -> Look:
        return Look(session.user, _address(request), str(request.url))

    def _report(self, look: Look, failure: str = "") -> None:
        self._reports.looked(look.user, look.address, look.uri, failure)


def _typed(question: Question) -> dict[str, str]:
    """Return what is in the fields of the form, the empty ones included."""
    return {name: question.words.get(name, "") for name in FIELDS}


def _with(question: Question, words: Mapping[str, str], **more: str) -> str:
    return replace(question, words={**question.words, **words, **more}).query()


def _without_times(question: Question, **more: str) -> str:
    kept = {name: word for name, word in question.words.items() if name not in TIMES}
    return replace(question, words=kept).query(**more)


def _recent(store: RecordStore, since: datetime) -> tuple[int, int]:
    """Return how many messages there have been, and how many of them failures."""
    counts = store.counts(Filter(since=since), timedelta(days=1))
    return sum(one.total for one in counts), sum(one.failures for one in counts)


def _record(store: RecordStore, wanted: int) -> Record:
    found = store.get(wanted)
    if found is None:
        raise HTTPException(404, "no such record")
    return found


async def _in(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, work)


def _login_form(problem: str, target: str, status: int = 200) -> Response:
    def made(token: str) -> Response:
        values = {"problem": problem, "target": target, "token": token}
        return HTMLResponse(showing.page("login", session=None, path="", **values), status)

    return entry.new_form_token(made)


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def _path_and_query(request: Request) -> str:
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path
