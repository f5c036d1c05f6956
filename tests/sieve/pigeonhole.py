"""Debian's Pigeonhole (package dovecot-sieve) as an oracle: which actions its ``sieve-test`` says for a script and a
message, in a form in which ours can be put too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.services import running
from twisted_mail.sieve.values import Action, Discard, FileInto, Keep, Notify, Outcome, Redirect, Reject, Vacation

__all__ = ["Pigeonhole", "said_by_us"]

CONFIGURATION = """\
mail_location = maildir:{folder}/Maildir
mail_home = {folder}
base_dir = {folder}/run
log_path = /dev/stderr
first_valid_uid = 0
first_valid_gid = 0
{user}
plugin {{
  sieve_extensions = +editheader +vacation-seconds +spamtest +spamtestplus +virustest +special-use
  sieve_vacation_min_period = 1d
  sieve_vacation_max_period = 90d
  sieve_spamtest_status_type = score
  sieve_spamtest_status_header = X-Spam-Score: ([[:digit:]]+)
  sieve_spamtest_max_value = 10
  sieve_virustest_status_type = text
  sieve_virustest_status_header = X-Virus: (.*)
  sieve_virustest_text_value1 = clean
  sieve_virustest_text_value5 = infected
}}
"""

_STORED = re.compile(r" \* store message in folder: (.*)")
_FLAGS = re.compile(r"\+ add IMAP flags: (.*)")


class Pigeonhole:
    """``sieve-test`` with a configuration and a user's folder of its own."""

    def __init__(self) -> None:
        """Ends the test (skipped, or failed where everything must be there) if it is not installed."""
        self.program = shutil.which("sieve-test") or ""
        if not self.program:
            running.unavailable("sieve-test is not installed (apt-get install dovecot-sieve)")
        self.folder = running.new_folder("sieve")
        self.folder.chmod(0o777)
        # It refuses to be root.
        user = "mail_uid = 65534\nmail_gid = 65534" if os.getuid() == 0 else f"mail_uid = {os.getuid()}"
        self.configuration = self.folder / "dovecot.conf"
        self.configuration.write_text(CONFIGURATION.format(folder=self.folder, user=user))

    def close(self) -> None:
        """Takes the folder away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def said(self, name: str, script: str, message: bytes, sender: str, recipient: str) -> list[str]:
        """One line for each action, in order; ``invalid`` for a script that it does not take, ``error`` for a run that
        failed."""
        source, mail = self.folder / f"{name}.sieve", self.folder / f"{name}.eml"
        source.write_text(script)
        mail.write_bytes(message)
        words = [self.program, "-c", str(self.configuration), "-f", sender, "-r", recipient, "-a", recipient]
        done = subprocess.run([*words, str(source), str(mail)], capture_output=True, timeout=20, check=False)
        output = done.stdout.decode("utf-8", "replace")
        if "failed to compile" in done.stderr.decode("utf-8", "replace"):
            return ["invalid"]
        if done.returncode:
            return ["error"]
        return list(_actions(output.splitlines()))

    def did(self, script: str, message: bytes, sender: str, recipient: str) -> dict[str, list[bytes]]:
        """What it really stores and sends: messages by mailbox, or by the address they are sent to."""
        source, mail, maildir = self.folder / "done.sieve", self.folder / "done.eml", self.folder / "Maildir"
        shutil.rmtree(maildir, ignore_errors=True)
        maildir.mkdir()
        maildir.chmod(0o777)
        source.write_text(script)
        mail.write_bytes(message)
        words = [self.program, "-c", str(self.configuration), "-e", "-f", sender, "-r", recipient, "-a", recipient]
        done = subprocess.run([*words, str(source), str(mail)], capture_output=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
        # What it sends it writes at once, and to whom it has sent it at the end.
        octets, *rest = done.stdout.split(b"\nRECIPIENT: ")
        sent = [_whole(each) for each in octets.split(b"X-Sieve: ")[1:]]
        addresses = [each.split(b"\n")[0].decode() for each in rest]
        found = {address: [message] for address, message in zip(addresses, sent, strict=True)}
        for path in maildir.rglob("new/*"):
            folder = path.parent.parent
            name = "INBOX" if folder == maildir else folder.name.removeprefix(".")
            found.setdefault(name, []).append(_whole(path.read_bytes()))
        return found

    def version(self) -> str:
        """What ``doveconf`` says of itself."""
        folder = Path(self.program).parent
        return subprocess.run([folder / "doveconf", "--version"], capture_output=True, text=True, check=False).stdout


def _whole(octets: bytes) -> bytes:
    """With CRLF, which it stores without, and without what it says of itself where it redirects."""
    lines = octets.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
    its = (b"Pigeonhole", b"X-Sieve-Redirected-From:", b"Message-ID: <dovecot-sieve")
    return b"".join([line + b"\r\n" for line in lines if not line.startswith(its)])


def _actions(lines: Sequence[str]) -> Iterator[str]:
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if found := _STORED.fullmatch(line):
            flags: list[str] = []
            extra: list[str] = []
            while at < len(lines) and lines[at].startswith("        + "):
                if added := _FLAGS.search(lines[at]):
                    flags = added[1].split()
                elif "create mailbox" in lines[at]:
                    extra.append("create")
                elif "special-use flag" in lines[at]:
                    extra.append(lines[at].split("`")[1].split("'")[0])
                at += 1
            yield _stored(found[1], flags, extra)
        elif line.startswith(" * redirect message to: "):
            yield "redirect " + line.split(": ", 1)[1].strip("<>")
        elif line == " * discard":
            yield "discard"
        elif line.startswith(" * reject message with reason: "):
            yield "reject " + line.split(": ", 1)[1].replace("??", " ")
        elif line.startswith(" * send vacation message"):
            seconds = subject = ""
            while at < len(lines) and lines[at].startswith("    => "):
                key, _, value = lines[at].removeprefix("    => ").partition(":")
                if key.strip() == "seconds":
                    seconds = value.strip()
                elif key.strip() == "subject":
                    subject = value.strip()
                at += 1
            yield f"vacation {seconds} {subject!r}"
        elif line.startswith(" * send notification"):
            recipients: list[str] = []
            subject = ""
            while at < len(lines) and lines[at].startswith(("    => ", "       + ")):
                text = lines[at]
                if ":" in text and text.startswith("       + "):
                    recipients.append(text.split(": ", 1)[1])
                elif "subject" in text:
                    subject = text.split(": ", 1)[1]
                at += 1
            yield f"notify {', '.join(recipients)} {subject.strip()!r}"


def _stored(mailbox: str, flags: Sequence[str], extra: Sequence[str]) -> str:
    place = "keep" if mailbox == "INBOX" else f"fileinto {mailbox}"
    return " ".join([place, *sorted(map(str.lower, flags)), *sorted(extra)])


def said_by_us(outcome: Outcome) -> list[str]:
    """Our outcome in the same form."""
    return ["error"] if outcome.error is not None else [_ours(action) for action in outcome.actions]


def _ours(action: Action) -> str:
    from twisted_mail.sieve.mailto import parse_mailto

    match action:
        case Keep():
            return _stored("INBOX", action.flags, ())
        case FileInto():
            extra = (["create"] if action.create else []) + ([action.special_use] if action.special_use else [])
            return _stored(action.mailbox, action.flags, extra)
        case Redirect():
            return f"redirect {action.address}"
        case Discard():
            return "discard"
        case Reject():
            return "reject " + " ".join(action.reason.split("\r\n"))
        case Vacation():
            return f"vacation {action.seconds} {action.subject!r}"
        case Notify():
            to = parse_mailto(action.method)
            return f"notify {', '.join((*to.recipients, *to.copies))} {(action.message or to.subject)!r}"
