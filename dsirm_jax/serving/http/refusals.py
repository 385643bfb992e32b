"""What a refused request gets: a status, and one line that says why."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dsirm_jax.io.errors import ContentError, InputError
from dsirm_jax.serving.http.messages import Problem
from dsirm_jax.serving.http.metrics import ServerMetrics
from dsirm_jax.serving.scorer.batching import Overloaded

log = logging.getLogger(__name__)
STOPPING = "the server is stopping"
SHOWN_CHARACTERS = 64
"""Characters shown of what a client sent."""
CODES = {
    400: "unreadable",
    404: "not_found",
    405: "not_allowed",
    408: "too_slow",
    413: "too_large",
    422: "invalid",
    500: "failed",
    503: "busy",
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": reason}
    for status, reason in {
        400: "The request cannot be read.",
        404: "There is no such thing.",
        413: "The request is too large.",
        422: "Something in the request is wrong.",
        503: "Too many requests; try again after Retry-After seconds.",
    }.items()
}
"""As the schema describes them."""


def refusal(status: int, reason: str, **headers: str) -> JSONResponse:
    """Returns the response to a request that is refused."""
    code = CODES.get(status, "refused")
    return JSONResponse({"code": code, "reason": reason}, status, headers=headers)


def add_handlers(app: FastAPI, *, metrics: ServerMetrics) -> None:
    """Makes an application answer errors with refusals, and count those of too many requests."""
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(InputError)(_wrong)
    app.exception_handler(HTTPException)(_refused)
    app.exception_handler(Overloaded)(functools.partial(_overloaded, metrics))


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    # Where and why, never what: it may be huge, or no text that can be written.
    reasons = [
        f"{'.'.join(str(part)[:SHOWN_CHARACTERS] for part in problem['loc'])}: {problem['msg']}"
        for problem in error.errors()
    ]
    more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    return refusal(422, "; ".join(reasons[:5]) + more)


async def _wrong(request: Request, error: InputError) -> Response:
    if isinstance(error, ContentError):
        raise error  # of the bundle, whose paths are nobody else's business
    return refusal(422, str(error))


async def _refused(request: Request, error: HTTPException) -> Response:
    return refusal(error.status_code, str(error.detail), **(error.headers or {}))


async def _overloaded(metrics: ServerMetrics, request: Request, error: Overloaded) -> Response:
    metrics.refused.inc()
    return refusal(503, f"{error}; try again", **{"retry-after": "1"})


class Unfinished:
    """Middleware: answers requests that failed, which the log has, or that a stop cut short."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            return await self.app(scope, receive, send_noted)
        except (Exception, asyncio.CancelledError) as error:
            if begun:
                raise
            answer = _unfinished(error)
        return await answer(scope, receive, send)


def _unfinished(error: BaseException) -> Response:
    if isinstance(error, asyncio.CancelledError):
        return refusal(503, f"{STOPPING}; try again", **{"retry-after": "1"})
    log.error("a request failed", exc_info=error)
    return refusal(500, "the server failed; its log says why")
