"""Messages on which scripts are run by ours and by Pigeonhole, and how a script for them is written. Most are lists of
tests, each of which files into a mailbox of its number: one run of the other program then judges them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["MESSAGES", "Pair", "each"]

PLAIN: Final = b"""\
Return-Path: <coyote@desert.example.org>
Received: from one.example (one.example [192.0.2.1]) by mx.example.org; Mon, 6 Jul 2026 10:00:05 +0200
Received: from two.example (two.example [192.0.2.2]) by one.example; Mon, 6 Jul 2026 09:59:59 +0200
Date: Mon, 6 Jul 2026 09:59:58 +0200
From: Wile E. Coyote <coyote@desert.example.org>
To: roadrunner+birds@acme.example.com, "Big; Bad" <Wolf@Forest.Example>
Cc: Friends: ann@example.org, bob@example.net;, carol@example.org
Subject: I have a present for you
Message-ID: <present-1@desert.example.org>
X-Spam-Score: 4
X-Virus: clean
X-Caffeine: C8H10N4O2
X-Empty:
X-Number: 0042
X-Number: 7
List-Id: Birds <birds.lists.example.org>
Importance: high
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

Look, I'm sorry about the whole anvil thing, and I really
didn't mean to try and drop it on you from the top of the
cliff.  MAKE MONEY FAST!  caf\xc3\xa9
""".replace(b"\n", b"\r\n")

ENCODED: Final = b"""\
Date: Fri, 2 Jan 2026 23:30:00 -0500
From: =?iso-8859-1?Q?J=FCrgen?= <juergen@example.de>
To: undisclosed-recipients:;
Subject: =?utf-8?B?R3LDvMOfZSBhdXM=?=
 =?utf-8?Q?_der_Sch=C3=B6nen?=
 Stadt
X-Folded: one
\ttwo
   three
X-Raw: caf\xc3\xa9 au lait
X-Stars: a*b?c\\d
X-Quoted: "quoted" 'text'
Reply-To: =?utf-8?Q?Not=2C_a_list?= <list@example.org>
Message-ID: <encoded@example.de>

Hallo
""".replace(b"\n", b"\r\n")

NESTED: Final = b"""\
From: Whomever <whoever@example.com>
To: Someone <someone@example.com>
Date: Sat, 10 Oct 2026 00:30:44 +0100
Subject: whatever
MIME-Version: 1.0
Message-ID: <nested@example.com>
Content-Type: multipart/mixed; boundary=outer

This is a multi-part message.
--outer
Content-Type: multipart/alternative; boundary=inner

inner prologue
--inner
Content-Type: text/plain; charset="us-ascii"
X-Part: plain

Hello
--inner
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable
X-Part: html

<html><body>HTML is for=20<b>readers</b></body></html>
--inner--
--outer
Content-Type: image/png; name="a photo.png"
Content-Disposition: attachment; filename="photo important.png"
Content-Transfer-Encoding: base64

aGVsbG8gd29ybGQ=
--outer
Content-Type: message/rfc822
Content-Disposition: inline

From: Inner Person <inner@example.net>
Subject: enclosed message
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: 8bit

gr\xfc\xdfe
--outer
Content-Type: text/plain
Content-Transfer-Encoding: base64

ZGVjb2RlZCBzZWNyZXQK
--outer--
epilogue text
""".replace(b"\n", b"\r\n")

BARE: Final = b"Subject: bare\r\n\r\nbody\r\n"

MESSAGES: Final = {"plain": PLAIN, "encoded": ENCODED, "nested": NESTED, "bare": BARE}


@dataclass(frozen=True, slots=True)
class Pair:
    """A script and a message; *ours* says what we do where that is not what Pigeonhole does, *why* for what reason."""

    name: str
    script: str
    message: str = "plain"
    sender: str = "coyote@desert.example.org"
    recipient: str = "roadrunner+birds@acme.example.com"
    ours: tuple[str, ...] | None = None
    why: str = ""


def each(capabilities: str, tests: str, before: str = "") -> str:
    """A script of one test a line, that files into the mailbox of its number where the test is true."""
    required = ", ".join(f'"{name}"' for name in ["fileinto", *capabilities.split()])
    lines = [f"require [{required}];", before]
    for number, test in enumerate(filter(None, map(str.strip, tests.splitlines())), 1):
        lines.append(f'if {test} {{ fileinto "{number}"; }}')
    return "\n".join(lines) + "\n"
