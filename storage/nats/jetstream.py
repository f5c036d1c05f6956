"""The part of JetStream's protocol that is used here (its API subjects and headers), over a `Link`.

Every call has a deadline and is repeated until then: after a restart, and while a stream has no leader, the servers drop
some requests without an answer. What is written carries an id of its own, by which the servers know a repetition.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os import urandom
from typing import Any, Final

from msgspec import Struct, json
from nats.aio.msg import Msg

from twisted_mail.storage.interfaces import Refused, StorageError, Unavailable
from twisted_mail.storage.nats.link import Link, NobodyAnswers

__all__ = ["JetStream", "JetStreamError", "Stored", "Written", "rfc3339"]

AGAIN_SECONDS: Final = 0.1
"""Between two tries when nobody listens (no leader yet)."""
LOOK_SECONDS: Final = 5.0
"""What a try may take, at least, that looks through many subjects: a server asked again too soon does it all again beside."""

NO_STREAM: Final = 10059
NO_CONSUMER: Final = 10014
NO_MESSAGE: Final = (10037, 10043)
DELETE_FAILED: Final = 10057
WRONG_SEQUENCE: Final = (10071,)
FULL: Final = (10002, 10047, 10077)
"""The account's limits; insufficient storage; the stream could not store it: its maximum, or the disk's."""
PASSING: Final = (10005, 10158, 10164, 10167)
"""Servers that have not found each other yet; another message of that id or for that subject is just being agreed on;
too many requests."""


class JetStreamError(Refused):
    """What the servers refused. `number` is JetStream's own error code."""

    def __init__(self, number: int, code: int, text: str, tries: int = 1) -> None:
        super().__init__(f"NATS: {text} ({number})")
        self.number = number
        self.code = code
        self.tries = tries
        """How often it was asked for; before the last there was no answer."""

    @property
    def passing(self) -> bool:
        """Whether the same may go well in a moment."""
        return self.number in PASSING or (self.code in (503, 408) and self.number not in FULL)

    @property
    def absent(self) -> bool:
        """Whether a message is not there."""
        said = str(self)
        gone = self.number == DELETE_FAILED and ("no message found" in said or "EOF" in said or "deleted" in said)
        return gone or self.number in NO_MESSAGE


@dataclass(frozen=True, slots=True)
class Written:
    """A message that a stream took."""

    sequence: int
    duplicate: bool
    """The stream had taken one with that id before; *sequence* is that one's."""
    tries: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of a stream."""

    subject: str
    sequence: int
    data: bytes
    headers: Mapping[str, str]
    time: float
    """When it was stored, in seconds since 1970."""


_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")


def rfc3339(seconds: float) -> str:
    """*seconds* since 1970 as JetStream writes times."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds_of(text: str) -> float:
    """What `rfc3339` wrote, or the servers with nanoseconds and with any zone. Raises: ValueError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text!r}")
    zone = "+00:00" if match[3] == "Z" else match[3]
    return datetime.fromisoformat(match[1] + zone).timestamp() + float(match[2] or 0)


class JetStream:
    """Streams on the servers of *link*."""

    def __init__(self, link: Link, seconds: float | None = None) -> None:
        self.link = link
        self.seconds = link.settings.request if seconds is None else seconds
        """How long a request may take with all its repetitions."""
        self.replicas = 1

    # --- any request

    async def _ask(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, attempt: float = 0.0
    ) -> tuple[Msg, dict[str, Any], int]:
        """Ask until there is an answer that is not temporary: it, what it says if it is JSON, and the number of tries.

        *attempt*: seconds that a try may take, where the usual ones are too few.
        Raises: Refused (it was never sent), Unavailable (no answer came).
        """
        settings = self.link.settings
        loop = asyncio.get_running_loop()
        ends = loop.time() + self.seconds
        sent = tries = 0
        why = "no connection"
        while (left := ends - loop.time()) > 0:
            if not await self.link.until_up(left):
                break
            tries += 1
            try:
                answer = await self.link.request(subject, payload, min(max(settings.attempt, attempt), left), headers)
                said = _said(answer)
                error = said.get("error")
                if error is None or not _error(error).passing:
                    self.link.went(None)
                    return answer, said, sent + 1
                why = _error(error).args[0].removeprefix("NATS: ")
            except NobodyAnswers as none:
                why = str(none)
            except TimeoutError as silent:
                sent += 1
                why = str(silent)
                continue  # it has waited already
            await asyncio.sleep(min(AGAIN_SECONDS, max(0.0, ends - loop.time())))
        self.link.went(f"the streams do not answer ({why})")
        text = f"NATS: {why}, in {self.seconds:g} s"
        raise Unavailable(text) if sent else Refused(text)

    async def api(self, what: str, body: object = None, attempt: float = 0.0) -> dict[str, Any]:
        """A call of ``$JS.API``. Raises: JetStreamError, Refused, Unavailable."""
        payload = b"" if body is None else json.encode(body)
        _, said, tries = await self._ask(f"$JS.API.{what}", payload, attempt=attempt)
        if "error" in said:
            raise _error(said["error"], tries)
        return said

    # --- streams and consumers

    async def make_stream(
        self, name: str, config: Mapping[str, Any], metadata: Mapping[str, str] | None = None
    ) -> Mapping[str, str]:
        """Have a stream of that configuration; one that is there keeps its replicas and metadata. Returns the metadata.

        Raises: StorageError.
        """
        wanted = {"name": name, "storage": "file", **config}
        try:
            try:
                said = await self.api(f"STREAM.INFO.{name}")
            except JetStreamError as error:
                if error.number != NO_STREAM:
                    raise
                made = {**wanted, "num_replicas": self.replicas, "metadata": dict(metadata or {})}
                said = await self.api(f"STREAM.CREATE.{name}", made)
            if any(said["config"].get(key) != value for key, value in wanted.items()):
                said = await self.api(f"STREAM.UPDATE.{name}", {**said["config"], **wanted})
        except JetStreamError as error:
            raise StorageError(f"{error}: the stream {name} cannot be had") from error
        if "ts" in said:
            self.link.saw_clock(seconds_of(said["ts"]))
        return dict(said["config"].get("metadata") or {})

    async def info(self, name: str, subjects: str | None = None) -> dict[str, Any]:
        """State of a stream, with the number of messages of each subject that matches *subjects* (all of them)."""
        if subjects is None:
            said = await self.api(f"STREAM.INFO.{name}")
            self.link.saw_clock(seconds_of(said["ts"]))
            return said
        found: dict[str, int] = {}
        while True:
            asked = {"subjects_filter": subjects, "offset": len(found)}
            said = await self.api(f"STREAM.INFO.{name}", asked, LOOK_SECONDS)
            page = said["state"].get("subjects") or {}
            found |= page
            if not page or len(found) >= said.get("total", len(found)):
                said["state"]["subjects"] = found
                return said

    async def subjects(self, name: str, matching: str) -> list[str]:
        """The subjects of *name* that match and have a message."""
        return list((await self.info(name, matching))["state"]["subjects"])

    # --- messages

    async def write(self, subject: str, data: bytes, headers: Mapping[str, str], id: str | None = None) -> Written:
        """Have a stream take a message. Raises: JetStreamError, Refused (it was not taken), Unavailable (not known)."""
        sent = {"Nats-Msg-Id": id or urandom(12).hex(), **headers}
        _, said, tries = await self._ask(subject, data, sent)
        if "error" in said:
            raise _error(said["error"], tries)
        if "seq" not in said:
            raise Unavailable("NATS: a stream's answer is not understood")
        return Written(said["seq"], bool(said.get("duplicate")), tries)

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The newest message whose subject matches, as the stream's leader has it."""
        return await self._get(stream, {"last_by_subj": subject})

    async def at(self, stream: str, sequence: int) -> Stored | None:
        return await self._get(stream, {"seq": sequence})

    async def _get(self, stream: str, what: Mapping[str, Any]) -> Stored | None:
        try:
            said = await self.api(f"STREAM.MSG.GET.{stream}", what)
        except JetStreamError as error:
            if error.absent:
                return None
            raise
        return _stored(json.decode(json.encode(said["message"]), type=_Message))

    async def last_of_many(self, stream: str, subjects: Sequence[str]) -> dict[str, Stored]:
        """The newest message of each of *subjects* (by any replica: it may be a moment old), by subject; one with wildcards
        may match two."""
        found: dict[str, Stored] = {}
        for at in range(0, len(subjects), 256):
            found |= await self._batch(stream, subjects[at : at + 256])
        return found

    async def _batch(self, stream: str, subjects: Sequence[str]) -> dict[str, Stored]:
        inbox = f"_INBOX.{urandom(12).hex()}"
        found: dict[str, Stored] = {}
        for _ in range(3):
            done = asyncio.Event()

            async def received(message: Msg, done: asyncio.Event = done) -> None:
                headers = message.headers or {}
                if "Nats-Subject" in headers:
                    stored = _direct(message)
                    found[stored.subject] = stored
                else:  # 204: the end of the batch; 404: nothing; 503: nobody answers
                    done.set()

            end = await self.link.subscribe(inbox, received)
            try:
                asked = json.encode({"multi_last": list(subjects), "batch": 2 * len(subjects)})
                if not await self.link.publish(f"$JS.API.DIRECT.GET.{stream}", asked, reply=inbox):
                    raise Refused("NATS: no connection")
                await asyncio.wait_for(done.wait(), self.link.settings.attempt)
                return found
            except TimeoutError:
                continue
            finally:
                await end()
        raise Unavailable("NATS: a stream does not answer")

    async def delete(self, stream: str, sequence: int) -> bool:
        """Remove a message. False: it is not there, and was not removed by this call."""
        try:
            await self.api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": True})
        except JetStreamError as error:
            if error.absent:
                # an earlier try of ours may have done it, and its answer was lost
                return error.tries > 1
            raise
        return True

    async def purge(self, stream: str, subject: str) -> int:
        """Remove all messages whose subject matches; returns how many (of the last try)."""
        return int((await self.api(f"STREAM.PURGE.{stream}", {"filter": subject}))["purged"])


# --- reading answers


def _said(answer: Msg) -> dict[str, Any]:
    if not answer.data.startswith(b"{"):
        return {}
    try:
        said: dict[str, Any] = json.decode(answer.data)
    except ValueError:
        return {}
    return said


def _error(said: Mapping[str, Any], tries: int = 1) -> JetStreamError:
    return JetStreamError(said.get("err_code", 0), said.get("code", 0), said.get("description", "an error"), tries)


class _Message(Struct):
    subject: str
    seq: int
    time: str
    hdrs: bytes = b""
    data: bytes = b""


def _stored(message: _Message) -> Stored:
    headers: dict[str, str] = {}
    for line in message.hdrs.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.decode("ascii", "replace")] = value.strip().decode("utf-8", "replace")
    return Stored(message.subject, message.seq, message.data, headers, seconds_of(message.time))


def _direct(message: Msg) -> Stored:
    headers = message.headers or {}
    return Stored(
        headers["Nats-Subject"],
        int(headers["Nats-Sequence"]),
        message.data,
        headers,
        seconds_of(headers["Nats-Time-Stamp"]),
    )
