"""Messages of one policy domain, counted by what a DMARC aggregate report says of them (RFC 9990)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import msgspec

from twisted_mail.filters.dmarc import Found
from twisted_mail.filters.dmarc_stage import Judged
from twisted_mail.filters.origins import Disposition
from twisted_mail.reports.dmarc_aggregate import DKIMRow, PublishedPolicy, Row, SPFRow

__all__ = ["PolicyCounts"]

_PARTS: Final = 16
"""Records of a domain, day and process."""
_OCTETS: Final = 60_000
"""Most of one of them: a record has at most 64 KiB."""
_ROWS: Final = 20_000
"""Most rows of a domain in memory, and in a report."""
_SIGNATURES: Final = 10
_NAME: Final = 253
_WHY: Final = 80

Policy = tuple[str, ...]
Key = tuple[str, str, str, str, str, str, str, str, tuple[tuple[str, str, str, str], ...], tuple[str, str, str] | None]
"""Source, disposition, DKIM, SPF, override, comment, header From, envelope from, signatures, SPF result."""


class _Stored(msgspec.Struct, array_like=True):
    policy: Policy
    rows: list[tuple[Key, int]]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Stored)


class PolicyCounts:
    """Of one policy domain and day."""

    def __init__(self) -> None:
        self._policy: Policy = ()
        """The one seen last: a domain that changes it gets one report all the same (section 3.1.6)."""
        self._rows: dict[Key, int] = {}

    def add(self, judged: Judged) -> None:
        """One message. Where there are too many rows it is counted without its signatures, then not at all."""
        self._policy = _policy(judged.found)
        key = _key(judged)
        if key not in self._rows and len(self._rows) >= _ROWS // 2:
            key = (*key[:8], (), None)
            if key not in self._rows and len(self._rows) >= _ROWS:
                return
        self._rows[key] = self._rows.get(key, 0) + 1

    def merge(self, other: PolicyCounts) -> None:
        """Add what *other* has."""
        self._policy = other._policy or self._policy
        for key, count in other._rows.items():
            if key in self._rows or len(self._rows) < _ROWS:
                self._rows[key] = self._rows.get(key, 0) + count

    def parts(self) -> Iterator[tuple[str, PolicyCounts]]:
        """Cut by row, so that each row is always in the same part."""
        cut: dict[str, PolicyCounts] = {}
        for key, count in self._rows.items():
            part = f"{hashlib.sha256(repr(key).encode()).digest()[0] % _PARTS:x}"
            some = cut.setdefault(part, PolicyCounts())
            some._policy = self._policy
            some._rows[key] = count
        yield from sorted(cut.items())

    def write(self) -> bytes:
        """For `Records`: the rows that fit, the most frequent ones first."""
        rows = sorted(self._rows.items(), key=lambda each: -each[1])
        while True:
            octets = _encoder.encode(_Stored(self._policy, rows))
            if len(octets) <= _OCTETS:
                return octets
            rows = rows[: len(rows) * _OCTETS // len(octets)]

    @classmethod
    def read(cls, octets: bytes) -> PolicyCounts:
        """What `write` made; nothing of what cannot be read."""
        counts = cls()
        try:
            stored = _decoder.decode(octets)
        except msgspec.MsgspecError:
            return counts
        counts._policy = stored.policy
        counts._rows = dict(stored.rows)
        return counts

    # --- for a report

    @property
    def policy(self) -> PublishedPolicy:
        """Raises: ValueError if nothing was counted."""
        if not self._policy:
            raise ValueError("nothing was counted")
        return PublishedPolicy(*self._policy)

    def rows(self) -> tuple[Row, ...]:
        """By client."""
        return tuple(_row(key, count) for key, count in sorted(self._rows.items(), key=lambda each: (each[0][:8], -each[1])))


def _policy(found: Found) -> Policy:
    """As `PublishedPolicy` has it."""
    record = found.record
    return (
        found.policy_domain,
        record.policy.value,
        record.subdomains.value if record.subdomains else "",
        record.missing.value if record.missing else "",
        "s" if record.strict_dkim else "r",
        "s" if record.strict_spf else "r",
        record.options,
        "y" if record.testing else "n",
        found.discovery,
    )


def _key(judged: Judged) -> Key:
    result, spf = judged.result, judged.spf
    disposition = result.applied.value
    if result.result == "pass" and result.policy is not Disposition.NONE:
        disposition = "pass"
    # Section 3.1.3: such as pass and are the author's first.
    signatures = sorted(
        judged.dkim.signatures, key=lambda each: (each.result.value != "pass", each.domain != result.domain, each.domain)
    )
    return (
        judged.address[:64],
        disposition,
        "pass" if result.dkim_aligned else "fail",
        "pass" if result.spf_aligned else "fail",
        result.override,
        judged.comment[:_WHY],
        result.domain[:_NAME],
        spf.domain[:_NAME] if spf is not None and spf.identity == "mailfrom" else "",
        tuple(
            (each.domain[:_NAME], each.selector[:_WHY], each.result.value, each.reason[:_WHY]) for each in signatures[:_SIGNATURES]
        ),
        (spf.domain[:_NAME], spf.result.value, spf.reason[:_WHY]) if spf is not None else None,
    )


def _row(key: Key, count: int) -> Row:
    source, disposition, dkim, spf, override, comment, author, sender, signatures, spf_result = key
    return Row(
        source,
        count,
        disposition,
        dkim,
        spf,
        author,
        sender,
        reasons=((override, comment),) if override else (),
        dkim_results=tuple(DKIMRow(*each) for each in signatures),
        spf_results=(SPFRow(spf_result[0], spf_result[1], why=spf_result[2]),) if spf_result is not None else (),
    )
