"""ARC sets made (RFC 8617 section 5.1): what this server has seen of a message that it sends on."""

from __future__ import annotations

import base64
import re
from typing import Final

from twisted_mail.signatures.arc import MAX_INSTANCE, ARCVerifier, Links, seal_digests
from twisted_mail.signatures.canonical import BodyHash, Canon
from twisted_mail.signatures.fields import Fields
from twisted_mail.signatures.reading import Reading
from twisted_mail.signatures.results import Chain, ChainResult
from twisted_mail.signatures.signing import SigningKey, fold_base64, fold_tags, names_to_sign, raw_field
from twisted_mail.signatures.verifying import header_digest

__all__ = ["ARCSealer", "CannotSeal", "Unsealed"]

_BREAKS: Final = re.compile(r"[\r\n]+")


class CannotSeal(Exception):
    """The chain has 50 sets, or has been broken already: nothing is to be added (section 5.1)."""


class ARCSealer:
    """Seals one message: give `at_body` to its `Reading` beside that of the `ARCVerifier`."""

    def __init__(self, *, now: float) -> None:
        self._now = int(now)
        self._fields: Fields | None = None
        self._body: BodyHash | None = None

    def at_body(self, reading: Reading) -> None:
        """The header is there."""
        self._fields = reading.fields
        self._body = reading.want(Canon.RELAXED)

    def unsealed(self, key: SigningKey, verifier: ARCVerifier, found: ChainResult, results: str) -> Unsealed:
        """What is left to do.

        *results* is the value of Authentication-Results as this server makes it: ``mx.example.org; spf=pass …``. *found*
        is what *verifier* said of the chain when the message came in.
        Raises: CannotSeal; RuntimeError before the body has begun (or when the header was too long).
        """
        if self._fields is None or self._body is None:
            raise RuntimeError("the header is not there")
        number = verifier.instances + 1
        if number > MAX_INSTANCE:
            raise CannotSeal("the chain has 50 sets")
        if found.sets and found.sets[-1].chain is Chain.FAIL:
            raise CannotSeal("the chain has ended")
        return Unsealed(key, number, found.chain, verifier.links, results, self._fields, self._body, self._now)


class Unsealed:
    """A message read, and not yet sealed."""

    def __init__(
        self,
        key: SigningKey,
        number: int,
        chain: Chain,
        links: tuple[Links, ...],
        results: str,
        fields: Fields,
        body: BodyHash,
        now: int,
    ) -> None:
        self._key = key
        self._number = number
        self._chain = chain
        self._links = links
        self._results = results
        self._fields = fields
        self._body = body
        self._now = now

    def seal(self) -> bytes:
        """The three fields, to be put in front of the message. Two signatures; may run in a thread."""
        results = self._result_field()
        message_signature = self._sign_message()
        seal = self._seal(results, message_signature)
        return seal + message_signature + results

    def _result_field(self) -> bytes:
        # Folded where results are parted: no line is too long, and no value is touched.
        text = _BREAKS.sub("", self._results).strip()
        parts = [part.strip() for part in text.split(";")]
        return "".join([f"ARC-Authentication-Results: i={self._number}; ", ";\r\n\t".join(parts), "\r\n"]).encode()

    def _sign_message(self) -> bytes:
        key = self._key
        names = [*names_to_sign(self._fields), *["dkim-signature"] * self._fields.count("dkim-signature")]
        field = fold_tags(
            "ARC-Message-Signature",
            [
                ("i", str(self._number)),
                ("a", key.key.algorithm),
                ("c", "relaxed/relaxed"),
                ("d", key.domain),
                ("s", key.selector),
                ("t", str(self._now)),
                ("h", ":".join(names)),
                ("bh", base64.b64encode(self._body.digest()).decode()),
            ],
        )
        digest = header_digest(raw_field(field), names, Canon.RELAXED, self._fields)
        return field + fold_base64(key.key.sign(digest)) + b"\r\n"

    def _seal(self, results: bytes, message_signature: bytes) -> bytes:
        key = self._key
        field = fold_tags(
            "ARC-Seal",
            [
                ("i", str(self._number)),
                ("a", key.key.algorithm),
                ("t", str(self._now)),
                ("cv", self._chain.value),
                ("d", key.domain),
                ("s", key.selector),
            ],
        )
        own = Links(raw_field(results), raw_field(message_signature), raw_field(field))
        # Section 5.1.2: what is broken is not sealed again.
        before: tuple[Links, ...] = () if self._chain is Chain.FAIL else self._links
        return field + fold_base64(key.key.sign(seal_digests((*before, own))[-1])) + b"\r\n"
