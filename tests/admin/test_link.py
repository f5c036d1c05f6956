"""mailctl account link: what the URL gives is the attachment; where there can be none, it is said why."""

from __future__ import annotations

import base64
import os
import random
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.admin.calling import Mailctl
from tests.admin.objects import on_objects
from tests.storage.s3.support import KEYS
from twisted_mail.account.intents import AddMessages, new_message
from twisted_mail.admin.links import numbered
from twisted_mail.admin.opening import Store
from twisted_mail.mime import MessageParser

USER = "ann@example.org"
REPORT = random.Random(1).randbytes(300_000)
NOTES = b"".join(b"line %d\r\n" % number for number in range(20_000))
QUOTED = b"=E2=82=AC and so on=\r\n" * 4000


def part(head: bytes, body: bytes) -> bytes:
    return b"--b\r\n" + head + b"\r\n" + body + b"\r\n"


def message(*parts: bytes) -> bytes:
    head = b'Subject: files\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
    return head + part(b"", b"see there") + b"".join(parts) + b"--b--\r\n"


def in_base64(content: bytes) -> bytes:
    return base64.encodebytes(content).replace(b"\n", b"\r\n")


PDF = part(
    b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n"
    b"Content-Disposition: attachment; filename*=UTF-8''%C3%9Cbersicht.pdf\r\n",
    in_base64(REPORT),
)
TEXT = part(b"Content-Type: text/csv; name=n.csv\r\nContent-Disposition: attachment\r\n", NOTES)
MIXED = part(
    b"Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n",
    in_base64(REPORT[:30_000]) + b"\r\n" + in_base64(REPORT[30_000:])[3:],
)
QP = part(b"Content-Type: text/rtf\r\nContent-Transfer-Encoding: quoted-printable\r\n", QUOTED)
SMALL = part(b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n", in_base64(REPORT[:100]))


def put(ctl: Mailctl, *messages: bytes) -> Mailctl:
    async def store(store: Store) -> None:
        async with store.account(await store.user(USER)) as account:
            for octets in messages:
                writer = store.accounts.writer()
                for start in range(0, len(octets), 50_000):
                    await writer.write(octets[start : start + 50_000])
                stored = await account.store(await writer.finish())
                inbox = account.state.inbox.id
                await account.commit(AddMessages(mailbox=inbox, messages=(new_message(stored, 1_790_000_000),)))

    ctl.inside(store)
    return ctl


@pytest.fixture(scope="module")
def ctl(tmp_path_factory: pytest.TempPathFactory) -> Mailctl:
    ctl = on_objects(tmp_path_factory.mktemp("objects")).with_user()
    return put(ctl, message(PDF), message(PDF, TEXT, MIXED, QP, SMALL), message(SMALL))


def test_the_url_gives_the_attachment(ctl: Mailctl) -> None:
    result = ctl.good("account", "link", USER, "inbox", "1")
    url = result.out.strip()
    assert "part 2, Übersicht.pdf, 293.0 KiB; good until" in result.err
    with urlopen(url, timeout=10) as answer:
        assert answer.read() == REPORT
        assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''%C3%9Cbersicht.pdf"
    with pytest.raises(HTTPError) as refused:
        urlopen(url.replace("X-Amz-Signature=", "X-Amz-Signature=0"), timeout=10)
    assert refused.value.code == 403


def test_of_several_one_is_named(ctl: Mailctl) -> None:
    refused = ctl.run("account", "link", USER, "INBOX", "2", "--json")
    assert (refused.status, refused.error()["parts"]) == (2, ["2", "3"])
    facts = ctl.json("account", "link", USER, "INBOX", "2", "3", "--minutes", "5")
    assert (facts["name"], facts["type"], facts["size"]) == ("n.csv", "text/csv", len(NOTES))
    with urlopen(facts["url"], timeout=10) as answer:
        assert answer.read() == NOTES
    assert "X-Amz-Expires=300" in facts["url"]


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("INBOX", "2", "4"), 1, "inline"),  # half of it is not regular base64: the object is not the content
        (("INBOX", "2", "5"), 1, "inline"),  # quoted-printable is stored as it came
        (("INBOX", "2", "6"), 1, "inline"),
        (("INBOX", "2", "1"), 1, "inline"),
        (("INBOX", "3"), 1, "inline"),
        (("INBOX", "2", "7"), 3, "not-found"),
        (("INBOX", "9"), 3, "not-found"),
        (("Nowhere", "1"), 3, "not-found"),
        (("INBOX", "1", "--minutes", "10081"), 2, "usage"),
    ],
)
def test_what_has_no_link_is_refused(ctl: Mailctl, words: tuple[str, ...], status: int, code: str) -> None:
    result = ctl.run("account", "link", USER, *words, "--json")
    assert (result.status, result.error()["code"]) == (status, code)


def test_encrypted_objects_and_files_have_no_links(tmp_path: Path) -> None:
    key = f"keys:{KEYS[0]}"
    sealed = put(on_objects(tmp_path / "s", f"x{os.urandom(8).hex()}", encryption=key).with_user(), message(PDF))
    assert sealed.run("account", "link", USER, "INBOX", "1", "--json").error()["code"] == "encrypted"
    (tmp_path / "files").mkdir()
    files = put(Mailctl(tmp_path / "files").with_user(), message(PDF))
    assert files.run("account", "link", USER, "INBOX", "1", "--json").error()["code"] == "no-links"


def test_parts_are_numbered_as_imap_does() -> None:
    inner = message(part(b"Content-Type: image/png\r\n", b"x")).replace(b"--b", b"--c").replace(b'"b"', b'"c"')
    parser = MessageParser()
    parser.feed(message(part(b"Content-Type: message/rfc822\r\n", inner), SMALL))
    assert [number for number, _ in numbered(parser.close().root)] == ["1", "2", "2.1", "2.2", "3"]
