"""Serves a page and answers for the photos that are dropped on it, on this machine's loopback address alone."""

import html
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

Answer = Callable[[bytes], Mapping[str, Any]]  # the bytes of a photo -> plain data; ValueError says what is wrong

HOST = "127.0.0.1"
MAX_BYTES = 2**28  # of a photo
# Another site's page can send this type only after the browser has asked this server, which refuses.
CONTENT_TYPE = "application/octet-stream"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
PAGE = Path(__file__).with_name("page.html")


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket on the loopback address; port 0 takes a free one. Raises ValueError if the port is not free."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise ValueError(
                f"port={port}: {error.strerror or error}; another demo may run there: give another port"
            ) from None
        yield listener


def serve(listener: socket.socket, title: str, answer: Answer) -> None:
    """Serves the page until the process is interrupted. Answers for one photo at a time."""
    uvicorn.Server(uvicorn.Config(app(title, answer), log_config=None, access_log=False)).run(sockets=[listener])


def app(title: str, answer: Answer) -> Starlette:
    """The web application: the page with the heading `title` at /, and the answers at /answer."""
    page, turn = PAGE.read_text(encoding="utf-8").replace("{{title}}", html.escape(title)), Lock()

    async def send_page(_: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})

    async def reply(request: Request) -> Response:
        if request.headers.get("content-type") != CONTENT_TYPE:
            return _refusal(f"send the bytes of one photo as {CONTENT_TYPE}", 415)
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_BYTES:
                return _refusal(f"the file has more than {MAX_BYTES:,} bytes", 413)
        try:
            return JSONResponse(await run_in_threadpool(_in_turn, turn, answer, bytes(content)))
        except ValueError as error:
            return _refusal(str(error), 400)

    # Another site may let a name of its own point to this machine. Such names are refused, so it reads no answer.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    return Starlette(routes=[Route("/", send_page), Route("/answer", reply, methods=["POST"])], middleware=[hosts])


def _in_turn(turn: Lock, answer: Answer, content: bytes) -> Mapping[str, Any]:
    with turn:
        return answer(content)


def _refusal(reason: str, status: int) -> Response:
    return JSONResponse({"error": reason}, status_code=status)
