"""How often sessions with one domain's servers were protected, and what failed: counts that can be added up and kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from twisted_mail.relay.values import PolicyNote, TLSFailure
from twisted_mail.reports.tls import FailureDetail, PolicyResult

__all__ = ["Counts", "DomainCounts"]

_POLICIES: Final = 20
"""Most policies of a domain in a day; further ones count as one without particulars."""
_REASONS: Final = 50
"""Most reasons of a policy; further ones count as one for each type."""
_DETAIL: Final = 120
_STRINGS: Final = 20
_STRING: Final = 200
_OCTETS: Final = 60_000
"""Most that is written: a record has at most 64 KiB."""

Reason = tuple[str, str, str, str, str]
"""Type, sending address, host, receiving address, detail."""
Policy = tuple[str, str, tuple[str, ...], tuple[str, ...]]
"""Kind, domain, strings, exchangers."""


@dataclass(slots=True)
class Counts:
    """Of one policy."""

    successes: int = 0
    failures: dict[Reason, int] = field(default_factory=dict)

    def fail(self, reason: Reason, times: int) -> None:
        if reason not in self.failures and len(self.failures) >= _REASONS:
            reason = (reason[0], "", "", "", "and others")
        self.failures[reason] = self.failures.get(reason, 0) + times


class _Stored(msgspec.Struct, array_like=True):
    policy: Policy
    successes: int
    failures: list[tuple[Reason, int]]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[_Stored])


class DomainCounts:
    """Of one domain and day, by policy."""

    def __init__(self) -> None:
        self._policies: dict[Policy, Counts] = {}

    def add(
        self, policy: PolicyNote, failure: TLSFailure | None, source: str, host: str, remote: str, detail: str
    ) -> None:
        """One session."""
        strings = tuple(string[:_STRING] for string in policy.strings[:_STRINGS])
        counts = self._of((policy.kind, policy.domain, strings, policy.mx[:_STRINGS]))
        if failure is None:
            counts.successes += 1
        else:
            counts.fail((failure.value, source, host, remote, detail[:_DETAIL]), 1)

    def merge(self, other: DomainCounts) -> None:
        """Add what *other* has."""
        for policy, theirs in other._policies.items():
            counts = self._of(policy)
            counts.successes += theirs.successes
            for reason, times in theirs.failures.items():
                counts.fail(reason, times)

    def _of(self, policy: Policy) -> Counts:
        counts = self._policies.get(policy)
        if counts is None:
            if len(self._policies) >= _POLICIES:
                policy = (policy[0], "", (), ())
            counts = self._policies.setdefault(policy, Counts())
        return counts

    def results(self) -> tuple[PolicyResult, ...]:
        """For a report; the most frequent reasons first."""
        return tuple(
            PolicyResult(
                kind,
                domain,
                strings,
                mx,
                counts.successes,
                sum(counts.failures.values()),
                tuple(
                    FailureDetail(type, source, host, remote, times, detail)
                    for (type, source, host, remote, detail), times in sorted(
                        counts.failures.items(), key=lambda item: (-item[1], item[0])
                    )
                ),
            )
            for (kind, domain, strings, mx), counts in sorted(self._policies.items())
        )

    def write(self) -> bytes:
        """For `Records`: where that is too long, without the particulars of failures, then of policies."""
        octets = self._encoded()
        for coarser in (_without_particulars, _without_strings):
            if len(octets) > _OCTETS:
                self._policies = coarser(self._policies)
                octets = self._encoded()
        return octets

    def _encoded(self) -> bytes:
        return _encoder.encode(
            [_Stored(policy, counts.successes, list(counts.failures.items())) for policy, counts in self._policies.items()]
        )

    @classmethod
    def read(cls, octets: bytes) -> DomainCounts:
        """What `write` made; nothing of what cannot be read."""
        counts = cls()
        try:
            stored = _decoder.decode(octets)
        except msgspec.MsgspecError:
            return counts
        for each in stored:
            mine = counts._of(each.policy)
            mine.successes += each.successes
            for reason, times in each.failures:
                mine.fail(reason, times)
        return counts


def _without_particulars(policies: dict[Policy, Counts]) -> dict[Policy, Counts]:
    found = {}
    for policy, counts in policies.items():
        coarse = found[policy] = Counts(counts.successes)
        for reason, times in counts.failures.items():
            coarse.fail((reason[0], "", "", "", ""), times)
    return found


def _without_strings(policies: dict[Policy, Counts]) -> dict[Policy, Counts]:
    found: dict[Policy, Counts] = {}
    for policy, counts in policies.items():
        coarse = found.setdefault((policy[0], policy[1], (), ()), Counts())
        coarse.successes += counts.successes
        for reason, times in counts.failures.items():
            coarse.fail(reason, times)
    return found
