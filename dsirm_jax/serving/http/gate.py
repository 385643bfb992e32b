"""What every request passes before an endpoint sees it."""

from __future__ import annotations

import asyncio
import ipaddress
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dsirm_jax.serving.http.refusals import SHOWN_CHARACTERS, refusal

BODY_BYTES = 512 * 1024
# The page's own files and this server are all that it may load or call.
HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; "
    b"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; "
    b"frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}


def host_name(name: str) -> str:
    """Returns a host's name or address, without brackets, as all its spellings are written."""
    bare = name.lower().removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return name.lower()
    mapped = address.ipv4_mapped if address.version == 6 else None
    return str(mapped or address)


class HeadAsGet:
    """Middleware: answers HEAD with the status and headers of GET, and no body."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self.app(scope, receive, send)

        async def send_bodiless(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        return await self.app({**scope, "method": "GET"}, receive, send_bodiless)


class Gate:
    """Middleware: refuses foreign hosts, limits bodies, and gives every answer `HEADERS`."""

    def __init__(self, app: ASGIApp, *, hosts: tuple[str, ...], seconds: float):
        self.app, self.hosts, self.seconds = app, hosts, seconds
        self._any, self._names = "*" in hosts, {host_name(host) for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *HEADERS.items()]}
            await send(message)

        async def refuse(status: int, reason: str) -> None:
            await refusal(status, reason)(scope, receive, send_with_headers)

        name = re.sub(r":\d+$", "", Headers(scope=scope).get("host", "")).lower()
        if not self._any and host_name(name) not in self._names:
            return await refuse(
                400,
                f"the header Host names {name[:SHOWN_CHARACTERS]!r}; call the server by "
                f"{' or '.join(self.hosts)}, or start it with the --host that you want to call",
            )
        body = bytearray()
        try:
            async with asyncio.timeout(self.seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > BODY_BYTES:
                        return await refuse(413, f"the body has more than {BODY_BYTES:,} bytes")
        except TimeoutError:
            return await refuse(408, f"the body did not come within {self.seconds:g} s")
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        return await self.app(scope, replay, send_with_headers)
