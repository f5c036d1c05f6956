"""The mailbox that transcripts begin with: a few small messages of different shapes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MESSAGES", "Given"]


@dataclass(frozen=True, slots=True)
class Given:
    """A message that is there before a transcript begins."""

    octets: bytes
    received: int
    zone: int = 0
    flags: tuple[str, ...] = ()


def _crlf(text: str) -> bytes:
    return text.lstrip("\n").replace("\n", "\r\n").encode()


# RFC 9051 section 8.
MINUTES = _crlf("""
Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)
From: Terry Gray <gray@cac.washington.example>
Subject: IMAP4rev2 WG mtg summary and minutes
To: imap@cac.washington.example
cc: minutes@CNRI.Reston.example,
   John Klensin <KLENSIN@MIT.example>
Message-Id: <B27397-0100000@cac.washington.example>
MIME-Version: 1.0
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII

The minutes.
They are short.
""")

# RFC 9051 section 6.3.12.
LUNCH = _crlf("""
Date: Mon, 7 Feb 1994 21:52:25 -0800 (PST)
From: Fred Foobar <foobar@Blurdybloop.example>
Subject: afternoon meeting
To: mooch@owatagu.siam.edu.example
Message-Id: <B27397-0100001@Blurdybloop.example>
MIME-Version: 1.0
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII

Hello Joe, do you think we can meet at 3:30 tomorrow?
""")

PARTS = _crlf("""
From: Ann <ann@example.org>
To: Bob <bob@example.net>
Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?= with a picture
Date: Tue, 1 Nov 2022 10:00:00 +0100
Message-ID: <parts@example.org>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="b"

--b
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Sch=C3=B6ne Gr=C3=BC=C3=9Fe
--b
Content-Type: image/png; name="dot.png"
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename="dot.png"

AAECAwQFBgcICQ==
--b
Content-Type: message/rfc822

From: carl@example.com
Subject: inside

Inner text.
--b--
""")

PLAIN = _crlf("""
From: dora@example.com
Subject: Re: afternoon meeting
Date: Mon, 14 Nov 2022 09:00:00 +0000

Four o'clock.
""")

MESSAGES = (
    Given(MINUTES, 837_596_665, -420, ("\\Seen",)),
    Given(LUNCH, 760_686_745, -480, ("\\Flagged", "$Forwarded")),
    Given(PARTS, 1_667_293_205, 60),
    Given(PLAIN, 1_668_416_400),
)
