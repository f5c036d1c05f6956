"""Where one-click unsubscribe arrives (RFC 8058): a POST unsubscribes, a GET only shows a page with a button.

Programs that follow every link of a message (scanners, previews) send GET and change nothing. No answer says whether an
address is known, or was unsubscribed already; without a token that we made there is nothing to see.
"""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.pages import notFound
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from twisted_mail.relay.suppression import UNSUBSCRIBE, Suppressions
from twisted_mail.relay.unsubscribe import TOKEN_CHARACTERS, Unsubscribing, Unsubscription
from twisted_mail.storage.interfaces import StorageError

__all__ = ["MOST_OCTETS", "BoundedRequest", "UnsubscribeResource", "unsubscribe_site", "unsubscriber"]

MOST_OCTETS: Final = 2048
"""Of a request's body: the field of RFC 8058, even as multipart/form-data, has some 200."""
_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex"><title>{title}</title></head>
<body style="font-family: sans-serif; max-width: 32em; margin: 4em auto; padding: 0 1em">
<h1>{title}</h1>
{text}
</body></html>
"""
_BUTTON: Final = """<p>{sender} will send you no more mail of this kind.</p>
<form method="post"><input type="hidden" name="List-Unsubscribe" value="One-Click">
<button type="submit">Unsubscribe</button></form>"""
_TOO_LARGE: Final = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

Act = Callable[[Unsubscription], Awaitable[Any]]


def unsubscriber(lists: Suppressions) -> Act:
    """What the page does: puts the address onto the list of the sender's domain, for its stream, for good."""

    async def act(who: Unsubscription) -> None:
        await lists.add(who.sender_domain, who.recipient, "one-click (RFC 8058)", UNSUBSCRIBE, None, who.stream)

    return act


class UnsubscribeResource(Resource):
    """Serves ``<url>/<token>``."""

    _log = Logger()
    isLeaf = True

    def __init__(self, unsubscribing: Unsubscribing, act: Act) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # twisted gives it no types
        self._unsubscribing = unsubscribing
        self._act = act

    def _who(self, request: Request) -> Unsubscription | None:
        parts: list[bytes] = request.postpath or []
        if len(parts) != 1 or len(parts[0]) > TOKEN_CHARACTERS or not parts[0].isascii():
            return None
        return self._unsubscribing.read(parts[0].decode())

    def render(self, request: Request) -> bytes | int:
        if request.method not in (b"GET", b"HEAD", b"POST"):
            request.setHeader(b"Allow", b"GET, HEAD, POST")
            return _answer(request, 405, "Method not allowed", "")
        found: bytes | int = super().render(request)  # type: ignore[no-untyped-call]
        return found

    def render_GET(self, request: Request) -> bytes:
        who = self._who(request)
        if who is None:
            return _answer(request, 404, "Not found", "<p>This link is not valid.</p>")
        return _answer(request, 200, "Unsubscribe?", _BUTTON.format(sender=html.escape(who.sender_domain)))

    def render_POST(self, request: Request) -> bytes | int:
        # Any body is small here behind `BoundedRequest`; another site may let more through
        size = request.content.seek(0, 2) if request.content is not None else 0
        if size > MOST_OCTETS:
            return _answer(request, 413, "Too large", "")
        who = self._who(request)
        if who is None:
            return _answer(request, 404, "Not found", "<p>This link is not valid.</p>")
        # twisted reads both application/x-www-form-urlencoded and multipart/form-data (RFC 8058 section 3.2 allows both)
        if request.args is None or request.args.get(b"List-Unsubscribe") != [b"One-Click"]:
            return _answer(request, 400, "Bad request", "<p>A form with List-Unsubscribe=One-Click is wanted.</p>")
        gone: list[bool] = []
        request.notifyFinish().addErrback(lambda _: gone.append(True))
        done = Deferred.fromCoroutine(self._unsubscribe(who, request))

        def answer(text: bytes) -> None:
            if not gone:
                request.write(text)
                request.finish()

        done.addCallback(answer)
        done.addErrback(self._failed)
        return NOT_DONE_YET

    async def _unsubscribe(self, who: Unsubscription, request: Request) -> bytes:
        try:
            await self._act(who)
        except StorageError as error:
            self._log.warn("an unsubscription could not be written down: {why!r}", why=error)
            request.setHeader(b"Retry-After", b"60")
            return _answer(request, 503, "Try again later", "<p>It could not be written down just now.</p>")
        except ValueError:
            return _answer(request, 404, "Not found", "<p>This link is not valid.</p>")
        return _answer(request, 200, "Unsubscribed", "<p>You will get no more mail of this kind.</p>")

    def _failed(self, failure: Failure) -> None:
        self._log.failure("an unsubscription failed", failure)


def _answer(request: Request, code: int, title: str, text: str) -> bytes:
    request.setResponseCode(code)
    for name, value in (
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Cache-Control", b"no-store"),
        (b"Referrer-Policy", b"no-referrer"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"X-Robots-Tag", b"noindex"),
        (
            b"Content-Security-Policy",
            b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
        ),
    ):
        request.setHeader(name, value)
    octets = _PAGE.format(title=title, text=text).encode()
    request.setHeader(b"Content-Length", str(len(octets)).encode())
    return octets


class BoundedRequest(Request):
    """Ends the connection of a client that announces, or sends, a larger body than any that is meant for us."""

    _received = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:
        super().gotLength(min(length, MOST_OCTETS) if length is not None else None)  # type: ignore[no-untyped-call]
        if length is not None and length > MOST_OCTETS:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > MOST_OCTETS:
            self._refuse()
        elif not self._refused:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def _refuse(self) -> None:
        if not self._refused:
            self._refused = True
            self.channel.write(_TOO_LARGE)
            self.channel.loseConnection()

    def process(self) -> None:
        if not self._refused:
            super().process()  # type: ignore[no-untyped-call]


def unsubscribe_site(unsubscribing: Unsubscribing, act: Act, reactor: Any = None, path: bytes = b"unsubscribe") -> Site:
    """A factory for a listener that serves nothing else; *reactor* for its time limits (Any: Twisted gives it no type)."""
    root = notFound()
    root.putChild(path, UnsubscribeResource(unsubscribing, act))
    return Site(root, requestFactory=BoundedRequest, timeout=30, reactor=reactor)
