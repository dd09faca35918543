"""What holds for every request and every answer, whatever page it is about.

1. The Host has to be a name of ours: else a page of a stranger's, whose name was bent to our
   address, would share an origin with us.
2. The query is bounded.
3. Every answer says what a browser may do with it: nothing but show it, with our style sheet.

``Strict-Transport-Security`` is left out on purpose: it holds for a name and all its ports, and
here the name is often ``localhost``.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

QUERY_LIMIT = 4096  # octets
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: forms would then say "Origin: null", and the origin is what we check.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{1,5})?")


class Guard:
    """Wraps the pages.

    Parameters
    ----------
    pages : ASGI application
    names : collection of str
        Host names and addresses that are ours, in lower case; IPv6 without brackets.
    """

    def __init__(self, pages: ASGIApp, names: Collection[str]) -> None:
        self._pages = pages
        self._names = frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        if host_of(Headers(scope=scope)) not in self._names:
            refusal = PlainTextResponse("This server is not known by that name.\n", 421)
            await refusal(scope, receive, sending)
        elif len(scope["query_string"]) > QUERY_LIMIT:
            await PlainTextResponse("The query is too long.\n", 414)(scope, receive, sending)
        else:
            await self._pages(scope, receive, sending)


def host_of(headers: Headers) -> str:
    """Return the name in the Host header, without port; empty where it makes no sense."""
    given = headers.getlist("host")
    found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    return found[1].strip("[]").lower().rstrip(".") if found else ""
