"""The studio's server: one page and one socket, for this machine and whoever knows the address.

Other pages that are open in the same browser, and other users of the machine, must not reach it: it listens at the
loopback address, its address holds a random token, and what names another host or comes from another origin is refused.
"""

import asyncio
import contextlib
import hmac
import json
import logging
import secrets
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import uvicorn
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from deconv_jax import __version__
from deconv_jax.errors import InputError, SettingError
from deconv_jax.page import document
from deconv_jax.page.scripts import joined
from deconv_jax.studio import pages, songs
from deconv_jax.studio.jobs import Message, wrong
from deconv_jax.studio.window import Studio, Window
from deconv_jax.system import files

log = logging.getLogger(__name__)

PORT = 8607
"""Where it listens if nothing else does."""

WINDOWS = 8
"""Windows that are open at a time, at most."""

WAITING = 16
"""Messages that may wait for a window; then its jobs wait."""

ASKED = 2**20
"""Bytes of a message of the page, at most."""

EVERYWHERE = ("0.0.0.0", "::")
"""Hosts that stand for all addresses of this machine."""

_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class Guard:
    """Refuses what does not come from the studio's own page, before anything else sees it."""

    def __init__(self, app: Any, hosts: set[str], token: str):
        self._app, self._hosts, self._token = app, hosts, token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or (reason := self._refused(scope)) is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason[1]})
        else:
            await PlainTextResponse(reason[1] + "\n", reason[0], _HEADERS)(scope, receive, send)

    def _refused(self, scope: Any) -> tuple[int, str] | None:
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            if key in headers and key in ("host", "origin"):
                return 400, f"{key} is named twice"
            headers[key] = value.decode("latin-1")
        host, origin = headers.get("host", ""), headers.get("origin")
        if host.lower() not in self._hosts:
            return 421, "this host is not the studio's: use the address that it printed"
        own = origin is not None and origin.lower() == f"http://{host.lower()}"
        needed = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if (origin is not None or needed) and not own:
            return 403, "this comes from another page than the studio's own"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and needed:
            return 403, "this comes from another page than the studio's own"
        first = scope["path"].split("/")[1] if "/" in scope["path"] else ""
        if not hmac.compare_digest(first.encode(), self._token.encode()):
            return 404, "there is nothing at this address: use the one that the studio printed"
        return None


def packed(message: Message) -> bytes:
    """A message as one binary frame: the length of its JSON (four bytes, little-endian), the JSON, the bytes.

    What JSON has no number for, such as the NaN that a network's overflow makes of an answer, is null.
    """
    try:
        text = json.dumps(message[0], allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        text = json.dumps(files.plain(message[0]), allow_nan=False, separators=(",", ":")).encode()
    return struct.pack("<I", len(text)) + text + message[1]


def application(studio: Studio, hosts: set[str], token: str) -> Guard:
    """The server's application.

    Args:
      studio: what it shows.
      hosts: what may stand as host, with its port.
      token: the first part of every path.
    """
    style, script = document.style("page", "studio"), joined("studio")
    sockets = " ".join(f"ws://{host}" for host in sorted(hosts) if not host.startswith("["))  # no source may be so
    policy = document.policy(style, script, images=" blob:")
    policy += f"; connect-src 'self' {sockets}; frame-ancestors 'none'"
    known = {"style": Markup(style), "script": Markup(script), "version": __version__}
    page = document.environment().get_template("studio.html.j2").render(known)
    open_windows: set[Window] = set()
    dropping = asyncio.Semaphore(2)

    async def index(request: Request) -> HTMLResponse:
        return HTMLResponse(page, headers={**_HEADERS, "content-security-policy": policy})

    async def drop(request: Request) -> JSONResponse:
        if dropping.locked():
            return JSONResponse({"wrong": "two songs are being dropped already: wait for one of them"}, 429, _HEADERS)
        async with dropping:
            try:
                stream = request.stream()
                with studio.library.receiving(request.query_params.get("name", "")) as incoming:
                    async for some in stream:
                        incoming.write(some)
            except InputError as error:
                await _drained(stream)
                return JSONResponse({"wrong": str(error)}, 400, _HEADERS)
            except ClientDisconnect:
                return JSONResponse({"wrong": "the browser went away"}, 400, _HEADERS)
        assert incoming.source
        studio.tell({"kind": "songs", "songs": studio.library.listing()})
        return JSONResponse({"key": incoming.source.key, "name": incoming.source.name}, headers=_HEADERS)

    async def page_made(request: Request) -> Response:
        path = pages.find(studio.library.pages, request.path_params["name"])
        if path is None:
            return PlainTextResponse("This page is not here any more: make it again\n", 404, _HEADERS)
        own = {"content-security-policy": "frame-ancestors 'none'"}  # what it may load, it says itself
        return FileResponse(path, headers=_HEADERS | own)

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        if len(open_windows) >= WINDOWS:
            await websocket.send_bytes(
                packed(wrong(f"{WINDOWS} windows are open already: close one, and load this again"))
            )
            await websocket.close(1013)
            return
        await _talk(websocket, studio, open_windows)

    routes = [
        Route("/", index),
        Route("/drop", drop, methods=["POST"]),
        Route("/page/{name}/", page_made),
        WebSocketRoute("/talk", talk),
    ]
    return Guard(Starlette(routes=[Mount(f"/{token}", routes=routes)]), hosts, token)


async def _drained(stream: AsyncIterator[bytes]) -> None:
    """Takes what a browser still sends and lets it go: it reads why a file was refused only when it has sent it."""
    gone = 0
    with contextlib.suppress(ClientDisconnect):
        async for some in stream:
            gone += len(some)
            if gone > songs.LARGEST:
                return


async def _talk(websocket: WebSocket, studio: Studio, open_windows: set[Window]) -> None:
    """Carries messages between a window and its page, until one of them ends."""
    loop, outbox, room = asyncio.get_running_loop(), asyncio.Queue[Message](), asyncio.Event()

    def send(message: Message) -> None:
        with contextlib.suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(outbox.put_nowait, message)

    window = Window(studio, send, lambda: outbox.qsize() < WAITING)
    open_windows.add(window)

    async def carry() -> None:
        while True:
            message = await outbox.get()
            await websocket.send_bytes(packed(message))
            if outbox.qsize() < WAITING:
                room.set()
                window.wake()

    carrying = asyncio.create_task(carry())
    try:
        while True:
            text = await websocket.receive_text()
            try:
                message = json.loads(text)
            except ValueError:
                message = None
            window.receive(message)
            while outbox.qsize() >= WAITING and not carrying.done():  # a page that asks and does not listen waits
                room.clear()
                await asyncio.wait([carrying, asyncio.ensure_future(room.wait())], return_when=asyncio.FIRST_COMPLETED)
    except (WebSocketDisconnect, KeyError):  # KeyError: bytes where text was due
        pass
    finally:
        open_windows.discard(window)
        window.close()
        carrying.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await carrying


def listening(host: str, port: int | None) -> socket.socket:
    """A socket that listens; at `PORT`, or any free one where that is taken, if no port is named.

    Raises:
      SettingError: the port that was named is taken, or the host is none of this machine's.
    """
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    for place in [port] if port is not None else [PORT, 0]:
        sock = socket.socket(kind)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, place))
            sock.listen(64)
            return sock
        except OSError as error:
            sock.close()
            if place != PORT or port is not None:
                raise SettingError(
                    f"{host}, port {place}: cannot be listened at ({error.strerror}); choose another"
                ) from None
    raise AssertionError("a free port is always tried last")


def hosts_of(host: str, port: int) -> set[str]:
    """What a browser may call the server, with its port."""
    names = {"127.0.0.1", "localhost", "[::1]"}
    if host not in ("127.0.0.1", "::1", "localhost"):
        names |= {f"[{host}]" if ":" in host else host, socket.gethostname().lower()}
    if host in EVERYWHERE:
        names |= _own_addresses()
    return {f"{name}:{port}" for name in names}


def _own_addresses() -> set[str]:
    """Addresses (IPv4) by which other machines may know this one."""
    found: set[str] = set()
    with contextlib.suppress(OSError):
        found |= {str(one[4][0]) for one in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # chooses the way out, and sends nothing
        found.add(sock.getsockname()[0])
    return found


def server_of(studio: Studio, sock: socket.socket, host: str) -> tuple[uvicorn.Server, str]:
    """A server for a socket that listens, and its address."""
    port, token = sock.getsockname()[1], secrets.token_urlsafe(24)
    config = uvicorn.Config(
        application(studio, hosts_of(host, port), token),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=ASKED,
        timeout_graceful_shutdown=2,
        server_header=False,
    )
    shown = f"[{host}]" if ":" in host else host
    return uvicorn.Server(config), f"http://{shown}:{port}/{quote(token)}/"
