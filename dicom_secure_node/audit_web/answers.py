"""Answers that are no page of the log: errors, downloads, the style sheet."""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dicom_secure_node.audit_web import showing
from dicom_secure_node.errors import InvalidInput, SecureNodeError

logger = logging.getLogger(__name__)

OCTETS = "application/octet-stream"


async def style(_: Request) -> Response:
    """Return the style sheet."""
    return Response(showing.style(), media_type="text/css; charset=utf-8")


def download(name: str) -> dict[str, str]:
    """Return the header that has a browser save an answer."""
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def _error(status: int, words: str) -> Response:
    page = showing.page("error", session=None, path="", status=status, words=words)
    return HTMLResponse(page, status)


def http_error(_: Request, exc: HTTPException) -> Response:
    """Answer what has a status."""
    words = {
        403: "That form was not one of ours, or too old. Please go back and try again.",
        404: "There is no such page or record.",
        503: "Too much to do at the moment. Please try again.",
    }
    answer = _error(exc.status_code, words.get(exc.status_code, exc.detail))
    answer.headers.update(exc.headers or {})
    return answer


def our_error(_: Request, exc: SecureNodeError) -> Response:
    """Answer an error of ours: the visitor's question, or something that is not there."""
    if isinstance(exc, InvalidInput):
        return _error(400, str(exc))
    logger.error("%s", exc)
    return _error(503, "The log cannot be shown at the moment; the server's own log says why.")


def fault(_: Request, exc: Exception) -> Response:  # noqa: ARG001 - of Starlette
    """Answer a fault of ours, without a word about it."""
    return _error(500, "Something went wrong here; the server's own log says what.")
