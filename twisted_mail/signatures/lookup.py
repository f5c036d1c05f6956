"""Keys from the DNS, each name asked for once for a message, all side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from twisted.internet.defer import Deferred, gatherResults

from twisted_mail.dns.values import DNS, DNSFailure, NoSuchName
from twisted_mail.signatures.keys import BadKey, PublicKey, parse_key_record

__all__ = ["KeyUnavailable", "Keys", "fetch_keys"]

_MOST_RECORDS: Final = 4


class KeyUnavailable(Exception):
    """The DNS does not answer; it may later."""


Keys = Mapping[str, "tuple[PublicKey, ...] | BadKey | KeyUnavailable"]
"""By name: the keys there (mostly one), or why there is none."""


async def fetch_keys(dns: DNS, names: Iterable[str]) -> Keys:
    """What stands at each of *names*."""
    wanted = list(dict.fromkeys(names))
    if len(wanted) == 1:
        return {wanted[0]: await _fetch(dns, wanted[0])}
    found = await gatherResults([Deferred.fromCoroutine(_fetch(dns, name)) for name in wanted], consumeErrors=True)
    return dict(zip(wanted, found))


async def _fetch(dns: DNS, name: str) -> tuple[PublicKey, ...] | BadKey | KeyUnavailable:
    try:
        answer = await dns.txt(name)
    except NoSuchName:
        return BadKey("no key")
    except DNSFailure:
        return KeyUnavailable("the key could not be fetched")
    keys: list[PublicKey] = []
    failure = BadKey("no key")
    for record in answer.records[:_MOST_RECORDS]:
        try:
            keys.append(parse_key_record(record))
        except BadKey as error:
            failure = error
    # Section 3.6.2.2 leaves open what several records mean; each that can be read may be the one.
    return tuple(keys) or failure
