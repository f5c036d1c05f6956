"""``python -m benchmarks.sieve [--messages N] [--repeat N]``: a script of 50 rules, ours beside Pigeonhole, CPU a message.

Theirs is Debian's ``sieve-filter`` over a maildir, which says what the script would do with each message and does nothing:
its CPU with the rules, less its CPU with ``keep;`` over the same mailbox, so that neither starting nor opening the mailbox
counts. In a mailbox that was never opened it reads each header, as it does of a message that is delivered; the second
time its cache has them. Ours is a `Message` made of the octets and a run of the compiled script, in this process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from twisted_mail.sieve import Message, RunEnvironment, compile_script

__all__ = ["message", "rules"]

_WORDS: Final = "meeting report invoice birds anvil weather python storage release question answer holiday order".split()
_GOAL: Final = "at most half of Pigeonhole's, in one run"

CONFIGURATION: Final = """\
mail_home = {folder}
base_dir = {folder}/run
log_path = /dev/stderr
first_valid_uid = 0
first_valid_gid = 0
mail_uid = {uid}
mail_gid = {gid}
"""


def message(number: int) -> bytes:
    """A message of 4 kB as lists and people send them: some 25 fields, three of them Received, and text."""
    chance = random.Random(number)

    def words(count: int) -> str:
        return " ".join(chance.choices(_WORDS, k=count))

    signature = "".join(chance.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/", k=340))
    lines = [f"Return-Path: <bounce-{number}@lists{number % 7}.example.net>"]
    for hop in range(3):
        lines += [
            f"Received: from mx{hop}.example.net (mx{hop}.example.net [192.0.2.{number % 250}])",
            f"\tby in{hop}.example.org with ESMTPS id {chance.getrandbits(48):x}",
            f"\tfor <ann@example.org>; Tue, {1 + number % 28:02} Sep 2026 {number % 24:02}:00:0{hop} +0200",
        ]
    lines += [
        "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.net; s=s1;",
        " h=from:to:subject:date:message-id; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;",
        *[f" {'b=' if not at else ''}{signature[at : at + 68]}" for at in range(0, len(signature), 68)],
        f"From: =?utf-8?q?J=C3=BCrgen_{number}?= <sender{number}@host{number % 50}.example.net>",
        f"To: ann@example.org, list{number % 20}@lists.example.net",
        f"Cc: Bob <bob{number % 9}@example.com>, carol@example.com",
        f"Subject: [list{number % 20}] {words(6)} {number}",
        f"Date: Tue, {1 + number % 28:02} Sep 2026 {number % 24:02}:00:00 +0200",
        f"Message-ID: <{number}.{chance.getrandbits(64):x}@host{number % 50}.example.net>",
        f"In-Reply-To: <{number - 1}.x@host.example.net>",
        f"References: <{number - 1}.x@host.example.net> <{number - 2}.x@host.example.net>",
        f"List-Id: List {number % 20} <list{number % 20}.lists.example.net>",
        f"List-Unsubscribe: <mailto:leave-{number}@lists.example.net>",
        "List-Post: <mailto:post@lists.example.net>",
        "Precedence: list",
        "X-Mailer: something 1.0",
        "X-Spam-Score: 1.2",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        "",
    ]
    size = sum(len(line) + 2 for line in lines)
    while size < 4096:
        line = words(9)
        lines.append(line)
        size += len(line) + 2
    return "\r\n".join(lines).encode() + b"\r\n"


def rules() -> str:
    """Fifty rules of the kinds that clients write; a message meets none to a few of them, so most are asked."""
    lines = ['require ["fileinto", "imap4flags", "copy"];']
    for number in range(50):
        kind = number % 10
        if kind < 3:
            test = f'header :contains "subject" "[topic{number}]"'
        elif kind == 3:
            test = f'header :is "list-id" "Other {number} <other{number}.lists.example.net>"'
        elif kind == 4:
            test = f'address :is "from" "friend{number}@example.com"'
        elif kind == 5:
            test = f'address :domain :is ["to", "cc"] "department{number}.example.org"'
        elif kind == 6:
            test = f'header :matches "subject" "*invoice ?{number} *"'
        elif kind == 7:
            test = f'anyof (header :contains "from" "robot{number}", header :contains "x-mailer" "mass{number}")'
        elif kind == 8:
            test = f'allof (header :contains "list-id" "list{number % 20}", header :contains "subject" "order order order")'
        else:
            test = f'header :contains ["to", "cc"] ["alias{number}@example.org", "group{number}@example.org"]'
        action = f'addflag "$label{number}";' if kind == 8 else f'fileinto "box{number}"; stop;'
        lines.append(f"if {test} {{ {action} }}")
    return "\n".join(lines) + "\n"


class NoMailboxes:
    """The script asks for none."""

    def exists(self, name: str) -> bool:
        return False

    def id_exists(self, mailbox_id: str) -> bool:
        return False

    def special_use_exists(self, use: str, name: str | None = None) -> bool:
        return False

    def metadata(self, name: str | None, entry: str) -> str | None:
        return None


def ours(messages: list[bytes], script: str) -> float:
    """CPU seconds for each message."""
    compiled = compile_script(script)
    mailboxes = NoMailboxes()
    began = time.process_time()
    for octets in messages:
        compiled.run(Message(octets), RunEnvironment(mailboxes=mailboxes, envelope_to="ann@example.org"))
    return (time.process_time() - began) / len(messages)


class SieveFilter:
    """Pigeonhole over a maildir with these messages."""

    def __init__(self, folder: Path, messages: list[bytes]) -> None:
        self.folder, self.count = folder, len(messages)
        self.maildir = folder / "maildir"
        for name in ("cur", "new", "tmp"):
            (self.maildir / name).mkdir(parents=True)
        for number, octets in enumerate(messages):
            (self.maildir / "cur" / f"{1_700_000_000 + number}.{number}.bench:2,").write_bytes(octets)
        # As root it would not run at all.
        uid, gid = (65534, 65534) if os.getuid() == 0 else (os.getuid(), os.getgid())
        self.configuration = folder / "dovecot.conf"
        self.configuration.write_text(CONFIGURATION.format(folder=folder, uid=uid, gid=gid))
        if os.getuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, uid, gid)
        self.environment = {"PATH": os.environ["PATH"], "USER": "bench", "HOME": str(folder)}

    def seconds(self, script: str) -> float:
        """CPU of one pass over the mailbox."""
        source = self.folder / "script.sieve"
        source.write_text(script)
        words = ["sieve-filter", "-c", str(self.configuration), "-o", f"mail_location=maildir:{self.maildir}"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [*words, str(source), "INBOX"], env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def forget(self) -> None:
        """Takes away what it wrote down of the mailbox."""
        for path in self.maildir.glob("dovecot*"):
            path.unlink()


def theirs(messages: list[bytes], script: str) -> tuple[float, float]:
    """CPU seconds for each message: of a mailbox that is new, and of one that it knows."""
    with tempfile.TemporaryDirectory(prefix="bench-sieve-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        pigeonhole = SieveFilter(folder, messages)
        pigeonhole.seconds(script)  # compiled, and the files are in memory
        pigeonhole.forget()
        bare = pigeonhole.seconds("keep;\n")
        pigeonhole.forget()
        first = pigeonhole.seconds(script)
        again = pigeonhole.seconds(script)
        known = pigeonhole.seconds("keep;\n")
    return (first - bare) / len(messages), (again - known) / len(messages)


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sieve", description=__doc__)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the least of each is shown")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    messages = [message(number) for number in range(arguments.messages)]
    script = rules()
    beside = shutil.which("sieve-filter") is not None
    mine, first, again = [], [], []
    for _ in range(arguments.repeat):  # in turn: whatever else the machine does is shared
        mine.append(min(ours(messages, script) for _ in range(3)))
        if beside:
            new, known = theirs(messages, script)
            first.append(new)
            again.append(known)
    figures = [Figure("ours: CPU", min(mine) * 1e6, "us a message")]
    if beside:
        figures += [
            Figure("Pigeonhole: CPU, headers read", min(first) * 1e6, "us a message"),
            Figure("Pigeonhole: CPU, headers known from its cache", min(again) * 1e6, "us a message"),
            Figure("ours to Pigeonhole", min(mine) / min(first), "", _GOAL),
        ]
    elif not arguments.json:
        print("sieve-filter is not installed: ours is measured alone. As root: apt-get install dovecot-sieve")
    if arguments.json:
        print(json.dumps([asdict(figure) for figure in figures]))
    else:
        print(f"50 rules, {len(messages)} messages of 4 kB")
        for figure in figures:
            print(figure)


if __name__ == "__main__":
    main()
