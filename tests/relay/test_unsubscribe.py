"""One click and no more: fields, tokens, and the page that they lead to."""

# mypy: disallow-untyped-calls=False
# (trial's assertions have no types)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import TestCase

from twisted_mail.mime.headers import first_value, iterate_fields
from twisted_mail.relay.streams import Stream
from twisted_mail.relay.suppression import Suppressions
from twisted_mail.relay.unsubscribe import Unsubscribing, Unsubscription
from twisted_mail.relay.unsubscribe_page import MOST_OCTETS, unsubscribe_site, unsubscriber
from twisted_mail.storage.interfaces import Unavailable
from twisted_mail.storage.memory import MemoryRecords

KEY, OLD = b"k" * 32, b"o" * 32
URL = "https://mail.x.example/unsubscribe"
WHO = Unsubscription("x.example", "bob@y.example", "marketing")
HEADER = b"From: news@x.example\r\nSubject: =?utf-8?q?hi?=\r\n"
links = Unsubscribing([KEY, OLD], URL, "unsubscribe@x.example")


def test_fields_are_added_where_there_are_none() -> None:
    front = links.fields(HEADER, WHO)
    names = [field.name for field in iterate_fields(front + HEADER + b"\r\n")]
    assert names == [b"list-unsubscribe", b"list-unsubscribe-post", b"from", b"subject"]
    assert first_value(front, b"list-unsubscribe-post") == b"List-Unsubscribe=One-Click"
    value = (first_value(front, b"list-unsubscribe") or b"").decode()
    https, mailto = value.split(", ")
    token = https.removeprefix(f"<{URL}/").removesuffix(">")
    assert links.read(token) == WHO
    assert mailto.startswith("<mailto:unsubscribe@x.example?subject=")
    assert links.of_subject("Re: " + mailto.partition("=")[2].rstrip(">")) == WHO
    assert links.fields(front + HEADER, WHO) == b"", "not twice"


def test_a_senders_own_link_stays_as_it_is() -> None:
    assert links.fields(b"LIST-unsubscribe: <mailto:x@y.example>\r\n" + HEADER, WHO) == b""
    front = links.fields(b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n", WHO)
    assert [field.name for field in iterate_fields(front)] == [b"list-unsubscribe"]


def test_no_sender_no_link_and_no_line_is_too_long() -> None:
    assert links.fields(HEADER, Unsubscription("", "bob@y.example", "marketing")) == b""
    long = Unsubscription("x" * 63 + ".example", "b" * 64 + "@" + ("y" * 60 + ".") * 3 + "example", "s" * 63)
    assert all(len(line) <= 998 for line in links.fields(HEADER, long).split(b"\r\n"))
    assert links.fields(HEADER, Unsubscription("x.example", "b" * 900, "m")) == b""


def test_keys_can_be_replaced() -> None:
    token = Unsubscribing([OLD], URL).token(WHO)
    assert links.read(token) == WHO and links.token(WHO) != token
    assert Unsubscribing([KEY], URL).read(token) is None
    for bad in ([], [b"short"]):
        with pytest.raises(ValueError):
            Unsubscribing(bad, URL)
    for url in ("http://x.example/u", "https:///u", "https://x.example/u?a=b", "ftp://x"):
        with pytest.raises(ValueError):
            Unsubscribing([KEY], url)


names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)


@given(st.builds(Unsubscription, names, names, names))
def test_tokens_come_back(who: Unsubscription) -> None:
    assert links.read(links.token(who)) == who


@given(st.text(max_size=60))
def test_nothing_else_is_a_token(text: str) -> None:
    assert links.read(text) is None


@given(st.integers(0, 10_000), st.sampled_from("ABCxyz019-_"))
def test_a_changed_token_is_none(place: int, character: str) -> None:
    token = links.token(WHO)
    at = place % len(token)
    changed = token[:at] + character + token[at + 1 :]
    assert links.read(changed) == (WHO if changed == token else None)


class PageTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.lists = Suppressions(MemoryRecords(self.clock), wall=self.clock.seconds)
        self.site = unsubscribe_site(links, unsubscriber(self.lists), self.clock)
        self.site.displayTracebacks = False

    def ask(self, octets: bytes) -> bytes:
        channel = self.site.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(octets)
        self.disconnecting = transport.disconnecting
        answer: bytes = transport.value()
        return answer

    def request(self, method: str, path: str, body: bytes = b"", kind: str = "application/x-www-form-urlencoded") -> tuple[int, bytes]:
        head = f"{method} {path} HTTP/1.1\r\nHost: mail.x.example\r\nContent-Length: {len(body)}\r\nContent-Type: {kind}\r\n\r\n"
        answer = self.ask(head.encode() + body)
        return int(answer.split(b" ", 2)[1]), answer

    async def stopped(self) -> bool:
        return await self.lists.check("x.example", "bob@y.example", Stream("marketing", (), one_click=True)) is not None

    def path(self) -> str:
        return "/unsubscribe/" + links.token(WHO)

    async def test_a_get_shows_a_button_and_changes_nothing(self) -> None:
        code, answer = self.request("GET", self.path())
        self.assertEqual(code, 200)
        self.assertIn(b'<form method="post">', answer)
        self.assertIn(b'name="List-Unsubscribe" value="One-Click"', answer)
        self.assertNotIn(b"bob@", answer)
        self.assertIn(b"Cache-Control: no-store", answer)
        self.assertIn(b"default-src 'none'", answer)
        self.assertEqual(self.request("HEAD", self.path())[0], 200)
        self.assertFalse(await self.stopped())

    async def test_one_click_unsubscribes_and_a_second_says_the_same(self) -> None:
        first = self.request("POST", self.path(), b"List-Unsubscribe=One-Click")
        self.assertEqual(first[0], 200)
        self.assertTrue(await self.stopped())
        again = self.request("POST", self.path(), b"List-Unsubscribe=One-Click")
        self.assertEqual(*(each[1].split(b"\r\n\r\n")[1] for each in (first, again)))
        entry = await self.lists.check("x.example", "bob@y.example", Stream("marketing", (), one_click=True))
        assert entry is not None
        self.assertEqual((entry.stream, entry.until), ("marketing", None))

    async def test_a_form_in_parts_is_taken_too(self) -> None:
        body = b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n'
        self.assertEqual(self.request("POST", self.path(), body, "multipart/form-data; boundary=b")[0], 200)
        self.assertTrue(await self.stopped())

    async def test_what_is_no_token_of_ours_finds_nothing(self) -> None:
        for path in ("/unsubscribe/x", "/unsubscribe/", "/unsubscribe", "/unsubscribe/" + links.token(WHO)[:-1] + "!",
                     self.path() + "/more", "/unsubscribe/" + "A" * 3000, "/other", "/"):  # fmt: skip
            for method in ("GET", "POST"):
                code, answer = self.request(method, path, b"List-Unsubscribe=One-Click" if method == "POST" else b"")
                self.assertEqual(code, 404, path)
                self.assertNotIn(b"Traceback", answer)
        self.assertFalse(await self.stopped())

    async def test_a_post_without_the_field_changes_nothing(self) -> None:
        for body in (b"", b"List-Unsubscribe=Two", b"x=y", b"List-Unsubscribe=One-Click&List-Unsubscribe=x"):
            self.assertEqual(self.request("POST", self.path(), body)[0], 400)
        self.assertEqual(self.request("PUT", self.path())[0], 405)
        self.assertFalse(await self.stopped())

    async def test_a_large_body_is_refused_before_it_is_read(self) -> None:
        head = f"POST {self.path()} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        answer = self.ask(head.encode() + b"Content-Length: 1000000000\r\n\r\n" + b"x" * 10)
        self.assertTrue(answer.startswith(b"HTTP/1.1 413"))
        self.assertTrue(self.disconnecting)
        chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
        answer = self.ask(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * (MOST_OCTETS // 1024 + 1) + b"0\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 413"))
        self.assertEqual(answer.count(b"HTTP/1.1"), 1)
        self.assertTrue(self.disconnecting)
        self.assertFalse(await self.stopped())

    async def test_a_store_that_is_down_says_so(self) -> None:
        async def act(who: Unsubscription) -> None:
            raise Unavailable("the reason is ours")

        self.site = unsubscribe_site(links, act, self.clock)
        code, answer = self.request("POST", self.path(), b"List-Unsubscribe=One-Click")
        self.assertEqual(code, 503)
        self.assertIn(b"Retry-After: 60", answer)
        self.assertNotIn(b"the reason is ours", answer)

    async def test_a_sender_is_shown_as_text(self) -> None:
        token = links.token(Unsubscription("<b>x.example", "bob@y.example", "m"))
        self.assertIn(b"&lt;b&gt;x.example", self.request("GET", "/unsubscribe/" + token)[1])
