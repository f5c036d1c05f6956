"""DKIM signatures checked (RFC 6376 section 6), as RFC 8301 and RFC 8463 amend it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import replace

from twisted_mail.dns.values import DNS
from twisted_mail.signatures.canonical import BodyHash, Canon, relax_field
from twisted_mail.signatures.fields import Fields, RawField
from twisted_mail.signatures.keys import BadKey, PublicKey
from twisted_mail.signatures.lookup import Keys, KeyUnavailable, fetch_keys
from twisted_mail.signatures.reading import Reading
from twisted_mail.signatures.results import DEFAULT_LIMITS, Limits, Result, Verification
from twisted_mail.signatures.statement import Statement, Unacceptable, a_labels, read_dkim, without_signature
from twisted_mail.signatures.tags import BadTags, parse_tags

__all__ = ["DKIMVerifier", "Refuted", "check_key", "check_message", "header_digest"]


class Refuted(Exception):
    """A check found against the signature."""

    def __init__(self, result: Result, reason: str) -> None:
        super().__init__(reason)
        self.result = result
        self.reason = reason


class DKIMVerifier:
    """Checks every DKIM-Signature of one message: give `at_body` to its `Reading`, and when that is closed await `results`."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._found: list[tuple[RawField, Statement | Verification, BodyHash | None]] = []
        self._fields: Fields | None = None

    def at_body(self, reading: Reading) -> None:
        """Read the signatures, from the top: the last hop's come first."""
        self._fields = reading.fields
        for field in reading.fields.named("dkim-signature"):
            if len(self._found) >= self._limits.signatures:
                self._found.append((field, Verification(Result.POLICY, "too many signatures"), None))
                continue
            outcome = _read(field)
            body: BodyHash | None = None
            if isinstance(outcome, Statement):
                if reading.ways < self._limits.body_hashes:
                    body = reading.want(outcome.body_canon, outcome.length)
                else:
                    outcome = _verification(outcome, Result.POLICY, "too many ways to hash the body")
            self._found.append((field, outcome, body))

    async def results(self, dns: DNS, now: float) -> tuple[Verification, ...]:
        """One for each signature, from the top; none if there is none (RFC 8601's "none"), or if the header was too long."""
        names = [each.key_name for _, each, _ in self._found if isinstance(each, Statement)]
        keys = await fetch_keys(dns, names) if names else {}
        done = []
        for _, outcome, body in self._found:
            if isinstance(outcome, Statement):
                assert body is not None
                outcome = self._check(outcome, body, keys, now)
            done.append(outcome)
        return tuple(done)

    def _check(self, statement: Statement, body: BodyHash, keys: Keys, now: float) -> Verification:
        assert self._fields is not None
        testing = False
        try:
            found = check_key(statement, keys, self._limits, identity=statement.identity)
            testing = all(key.testing for key in found)
            check_message(statement, self._fields, body, found, self._limits, now)
        except Refuted as refuted:
            return replace(_verification(statement, refuted.result, refuted.reason), testing=testing)
        return replace(_verification(statement, Result.PASS), testing=testing)


def _read(field: RawField) -> Statement | Verification:
    try:
        return read_dkim(field)
    except BadTags as error:
        return replace(_what_can_be_read(field), result=Result.NEUTRAL, reason=str(error))
    except Unacceptable as error:
        return replace(_what_can_be_read(field), result=Result.PERMERROR, reason=str(error))


def _what_can_be_read(field: RawField) -> Verification:
    """Of a signature that is refused unchecked: enough to say in a header which one it is."""
    try:
        tags = parse_tags(field.text)
        domain = a_labels(tags.get("d", ""))
    except BadTags:
        return Verification(Result.NEUTRAL)
    return Verification(
        Result.NEUTRAL,
        domain=domain[:253],
        selector=tags.get("s", "")[:253],
        algorithm=tags.get("a", "")[:64].lower(),
        signature_start="".join(tags.get("b", "").split())[:8],
    )


def _verification(statement: Statement, result: Result, reason: str = "") -> Verification:
    return Verification(
        result,
        reason,
        domain=statement.domain,
        identity=statement.identity,
        selector=statement.selector,
        algorithm=statement.algorithm,
        signature_start=statement.signature_start,
        covered=statement.names,
        signed_at=statement.signed_at,
    )


def check_key(statement: Statement, keys: Keys, limits: Limits, identity: str = "") -> list[PublicKey]:
    """The keys at the place that *statement* names which may have made it (section 6.1.2). Raises: Refuted."""
    found = keys[statement.key_name]
    if isinstance(found, KeyUnavailable):
        raise Refuted(Result.TEMPERROR, str(found))
    if isinstance(found, BadKey):
        raise Refuted(Result.PERMERROR, str(found))
    usable = []
    refuted = Refuted(Result.PERMERROR, "no key")
    for key in found:
        if key.type != statement.key_type:
            refuted = Refuted(Result.PERMERROR, "key of another type than the signature")
        elif key.hashes and "sha256" not in key.hashes:
            refuted = Refuted(Result.PERMERROR, "the key is not for sha256")
        elif not {"*", "email"} & set(key.services):
            refuted = Refuted(Result.PERMERROR, "the key is not for mail")
        elif key.strict and identity and a_labels(identity.rpartition("@")[2]) != statement.domain:
            refuted = Refuted(Result.PERMERROR, "the key is not for subdomains")
        elif key.type == "rsa" and key.bits < limits.rsa_bits:
            refuted = Refuted(Result.POLICY, f"key of {key.bits} bits is too short")
        else:
            usable.append(key)
    if not usable:
        raise refuted
    return usable


def check_message(
    statement: Statement, fields: Fields, body: BodyHash, keys: Iterable[PublicKey], limits: Limits, now: float
) -> None:
    """Whether the message is what was signed (section 6.1.3). Raises: Refuted."""
    if statement.expires_at is not None and now > statement.expires_at + limits.clock_skew:
        raise Refuted(Result.FAIL, "signature expired")
    if statement.signed_at is not None and statement.signed_at > now + limits.clock_skew:
        raise Refuted(Result.FAIL, "signed in the future")
    if not hmac.compare_digest(body.digest(), statement.body_hash):
        raise Refuted(Result.FAIL, "body hash did not verify")
    digest = header_digest(statement.field, statement.names, statement.header_canon, fields)
    if not any(key.verifies(statement.signature, digest) for key in keys):
        raise Refuted(Result.FAIL, "signature did not verify")
    # Section 8.15: a message has one author; a field above the one that was signed is what people would see.
    if fields.count("from") > statement.names.count("from"):
        raise Refuted(Result.POLICY, "a From field is not signed")
    # Section 8.2: with l= anybody can write on below what was signed, and over it with MIME.
    if statement.length is not None and body.size != statement.length:
        raise Refuted(Result.POLICY, "the signature leaves a part of the body open (l=)")


def header_digest(own: RawField, names: Iterable[str], canon: Canon, fields: Fields) -> bytes:
    """The hash that is signed (section 3.7): the fields of *names*, then *own* with its ``b=`` emptied."""
    digest = hashlib.sha256()
    for field in fields.chosen(names, canon):
        digest.update(field)
    last = without_signature(own.raw)
    digest.update(relax_field(last) if canon is Canon.RELAXED else last)
    return digest.digest()
