"""ARC chains checked (RFC 8617 section 5.2): what servers on the way have seen, and whether it can be known that they did."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from twisted_mail.dns.values import DNS
from twisted_mail.signatures.canonical import BodyHash, relax_field
from twisted_mail.signatures.fields import Fields, RawField
from twisted_mail.signatures.lookup import Keys, fetch_keys
from twisted_mail.signatures.reading import NotHashed, Reading
from twisted_mail.signatures.results import DEFAULT_LIMITS, ArcSet, Chain, ChainResult, Limits, Result
from twisted_mail.signatures.statement import Statement, Unacceptable, read_message_seal, read_seal, without_signature
from twisted_mail.signatures.tags import BadTags, number_of, parse_tags
from twisted_mail.signatures.verifying import Refuted, check_key, check_message

__all__ = ["ARC_FIELDS", "MAX_INSTANCE", "ARCVerifier", "Links", "seal_digests"]

RESULTS, MESSAGE_SIGNATURE, SEAL = "arc-authentication-results", "arc-message-signature", "arc-seal"
ARC_FIELDS: Final = (RESULTS, MESSAGE_SIGNATURE, SEAL)
MAX_INSTANCE: Final = 50
_INSTANCE: Final = re.compile(r"[ \t\r\n]*i[ \t\r\n]*=[ \t\r\n]*([0-9]{1,4})[ \t\r\n]*;", re.IGNORECASE)
_UNFOLD: Final = re.compile(r"\r?\n(?=[ \t])")


class _Broken(Exception):
    """The chain fails, and why."""


@dataclass(frozen=True, slots=True)
class Links:
    """The three fields of one instance."""

    results: RawField
    message_signature: RawField
    seal: RawField


@dataclass(frozen=True, slots=True)
class _Read:
    links: Links
    message_signature: Statement
    seal: Statement
    body: BodyHash


class ARCVerifier:
    """Checks the chain of one message: give `at_body` to its `Reading`, and when that is closed await `result`."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._fields: Fields | None = None
        self._sets: list[_Read] = []
        self._broken = ""
        self.links: tuple[Links, ...] = ()
        """The sets there are, in ascending order, if they are complete; for who seals next."""
        self.instances = 0
        """The highest instance of any field."""

    def at_body(self, reading: Reading) -> None:
        """The header is there: are the sets complete, and what do they say?"""
        self._fields = reading.fields
        if not any(map(reading.fields.count, ARC_FIELDS)):
            return
        try:
            self.links = self._collect(reading.fields)
            self._sets = [self._read(number, links, reading) for number, links in enumerate(self.links, 1)]
        except _Broken as broken:
            self._broken = str(broken)

    def _collect(self, fields: Fields) -> tuple[Links, ...]:
        found: dict[str, dict[int, RawField]] = {}
        doubled = malformed = ""
        for name in ARC_FIELDS:
            numbered = found[name] = {}
            for field in fields.named(name):
                number = _instance(field)
                if number is None:
                    malformed = f"{name} without a proper instance"
                    continue
                self.instances = max(self.instances, number)
                if number in numbered:
                    doubled = f"instance {number} of {name} comes twice"
                numbered[number] = field
        if malformed or doubled:
            raise _Broken(malformed or doubled)
        numbers = set().union(*found.values())
        if self.instances > MAX_INSTANCE:
            raise _Broken("more than 50 sets")
        for number in range(1, self.instances + 1):
            for name in ARC_FIELDS:
                if number not in found[name]:
                    raise _Broken(f"instance {number} of {name} is missing")
        return tuple(
            Links(found[RESULTS][number], found[MESSAGE_SIGNATURE][number], found[SEAL][number])
            for number in sorted(numbers)
        )

    def _read(self, number: int, links: Links, reading: Reading) -> _Read:
        try:
            seal, message_signature = read_seal(links.seal), read_message_seal(links.message_signature)
        except (BadTags, Unacceptable) as error:
            raise _Broken(f"instance {number}: {error}") from error
        if seal.chain not in ("none", "pass", "fail"):
            raise _Broken(f"instance {number}: unknown cv=")
        if reading.ways >= self._limits.body_hashes:
            raise _Broken("too many ways to hash the body")
        try:
            body = reading.want(message_signature.body_canon, message_signature.length)
        except NotHashed as error:
            raise _Broken(f"instance {number} hashes the body in another way") from error
        return _Read(links, message_signature, seal, body)

    async def result(self, dns: DNS, now: float) -> ChainResult:
        """What the chain is worth. Keys are asked for side by side."""
        if self._fields is None or not (self._sets or self._broken):
            return ChainResult(Chain.NONE)
        oldest, temporary = 0, False
        reason = self._broken
        if not reason:
            try:
                self._check_order()
                oldest = await self._check(dns, now)
            except _Broken as broken:
                reason = str(broken)
            except Refuted as refuted:
                reason, temporary = refuted.reason, refuted.result is Result.TEMPERROR
        return ChainResult(
            Chain.FAIL if reason else Chain.PASS,
            reason,
            temporary,
            sets=tuple(self._set(number, each) for number, each in enumerate(self._sets, 1)),
            oldest_pass=oldest,
            instances=self.instances,
        )

    def _set(self, number: int, read: _Read) -> ArcSet:
        text = _UNFOLD.sub("", read.links.results.text)
        return ArcSet(number, read.seal.domain, text.partition(";")[2].strip(), Chain(read.seal.chain))

    def _check_order(self) -> None:
        """Steps 2 and 3 of section 5.2."""
        if self._sets[-1].seal.chain == "fail":
            raise _Broken(f"instance {len(self._sets)} says that the chain was broken")
        for number, each in enumerate(self._sets, 1):
            if each.seal.chain != ("none" if number == 1 else "pass"):
                raise _Broken(f"instance {number} says cv={each.seal.chain}")

    async def _check(self, dns: DNS, now: float) -> int:
        """Steps 4 to 6; the oldest instance from which on nothing was changed, 0 for all. Raises: _Broken, Refuted."""
        sets = self._sets
        keys = await fetch_keys(dns, [name for each in sets for name in (each.seal.key_name, each.message_signature.key_name)])
        self._check_signature(len(sets), keys, now)
        digests = seal_digests(self.links)
        for number in range(len(sets), 0, -1):
            self._check_seal(number, digests[number - 1], keys)
        for number in range(len(sets) - 1, 0, -1):
            try:
                self._check_signature(number, keys, now)
            except Refuted:
                return number + 1
        return 0

    def _check_signature(self, number: int, keys: Keys, now: float) -> None:
        assert self._fields is not None
        read = self._sets[number - 1]
        try:
            found = check_key(read.message_signature, keys, self._limits)
            check_message(read.message_signature, self._fields, read.body, found, self._limits, now)
        except Refuted as refuted:
            raise Refuted(refuted.result, f"ARC-Message-Signature {number}: {refuted.reason}") from refuted

    def _check_seal(self, number: int, digest: bytes, keys: Keys) -> None:
        seal = self._sets[number - 1].seal
        try:
            found = check_key(seal, keys, self._limits)
        except Refuted as refuted:
            raise Refuted(refuted.result, f"ARC-Seal {number}: {refuted.reason}") from refuted
        if not any(key.verifies(seal.signature, digest) for key in found):
            raise _Broken(f"ARC-Seal {number} did not verify")


def _instance(field: RawField) -> int | None:
    """``i=``, of ARC-Authentication-Results before all else; None if there is none in 1..9999."""
    if field.name == RESULTS:
        match = _INSTANCE.match(field.text)
        number = int(match[1]) if match is not None else 0
    else:
        try:
            number = number_of(parse_tags(field.text).get("i", ""), "i", digits=4)
        except BadTags:
            number = 0
    return number or None


def seal_digests(sets: Sequence[Links]) -> list[bytes]:
    """What each seal signs (section 5.1.1): the sets up to its own in ascending order, in each results, signature, seal;
    its own seal with ``b=`` emptied and without a line end."""
    before = hashlib.sha256()
    digests = []
    for each in sets:
        for field in (each.results, each.message_signature):
            before.update(relax_field(field.raw) + b"\r\n")
        own = before.copy()
        own.update(relax_field(without_signature(each.seal.raw)))
        digests.append(own.digest())
        before.update(relax_field(each.seal.raw) + b"\r\n")
    return digests
