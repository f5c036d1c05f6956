"""The doctor's look at the daemons that judge mail: are they there, and do they know what every one of them must know?"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any, Final

from twisted_mail.admin.findings import Finding
from twisted_mail.filters.clamav import ClamAV
from twisted_mail.filters.rspamd import ask_rspamd, place_of_url
from twisted_mail.filters.spamassassin import ask_spamd
from twisted_mail.filters.values import FilterDown
from twisted_mail.filters.wires import Dial, Place, dial
from twisted_mail.queueing.limits import TooSlow, within
from twisted_mail.tap.settings import Configuration

__all__ = ["asked", "look"]

_SECONDS: Final = 15.0
_HEAD: Final = (
    b"From: doctor@localhost\r\nTo: doctor@localhost\r\nSubject: a test\r\nMessage-ID: <doctor@localhost>\r\n\r\n"
)
# Both in two pieces, so that no scanner takes this file for what it looks for.
_EICAR: Final = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!$H+H*"
_GTUBE: Final = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-" + b"ANTI-UBE-TEST-EMAIL*C.34X\r\n"

Look = Coroutine[Any, Any, Finding]


def asked(configuration: Configuration) -> bool:
    """Whether there is any."""
    filters = configuration.filters
    named = (
        filters.clamav.address,
        filters.spamassassin.address,
        filters.rspamd.url,
        filters.milters,
        filters.policies,
    )
    return filters.enabled and any(named)


async def look(reactor: Any, configuration: Configuration) -> list[Finding]:
    """ClamAV is shown the EICAR test file, SpamAssassin and rspamd are shown GTUBE; of others it is seen who listens."""
    filters = configuration.filters
    call = dial(reactor)
    looks: list[tuple[str, Callable[[], Look]]] = []
    if filters.clamav.address:
        looks.append(("clamav", lambda: _clamav(call, Place.parse(filters.clamav.address))))
    if filters.spamassassin.address:
        looks.append(("spamassassin", lambda: _spamassassin(call, Place.parse(filters.spamassassin.address))))
    if filters.rspamd.url:
        looks.append(("rspamd", lambda: _rspamd(call, filters.rspamd.url, filters.rspamd.password)))
    others = [(each.name, each.address) for each in filters.milters] + [
        (each.name, each.address) for each in filters.policies
    ]
    for name, address in others:
        looks.append((name or address, partial(_listens, call, address)))
    found = []
    for name, ask in looks:
        try:
            found.append(await within(reactor, _SECONDS, ask()))
        except (FilterDown, TooSlow) as error:
            why = str(error) if isinstance(error, FilterDown) else f"no answer in {_SECONDS:.0f} s"
            found.append(
                Finding("filters.down", "error", f"{name}: {why}", "start it, or correct its address in [filters]")
            )
    return found


async def _octets(octets: bytes) -> AsyncGenerator[bytes, None]:
    yield octets


async def _clamav(call: Dial, place: Place) -> Finding:
    verdict = await ClamAV(place, call, seconds=_SECONDS).scan(_octets(_HEAD + _EICAR))
    if "virus" in verdict.facts:
        return Finding("filters.clamav", "ok", "ClamAV finds the EICAR test file")
    return Finding(
        "filters.clamav",
        "error",
        "ClamAV does not find the EICAR test file",
        "see whether freshclam has fetched signatures",
    )


async def _spamassassin(call: Dial, place: Place) -> Finding:
    octets = _HEAD + _GTUBE
    answer = await ask_spamd(call, place, b"SYMBOLS", {}, len(octets), _octets(octets), seconds=_SECONDS)
    if "GTUBE" in answer.rules:
        return Finding("filters.spamassassin", "ok", "SpamAssassin knows GTUBE")
    return Finding(
        "filters.spamassassin", "error", "SpamAssassin does not know GTUBE", "see whether its rules are there"
    )


async def _rspamd(call: Dial, url: str, password: str) -> Finding:
    octets = _HEAD + _GTUBE
    place, path = place_of_url(url, 11_333)
    fields = [("Password", password)] if password else []
    status, said = await ask_rspamd(
        call, place, f"{path}/checkv2", fields, len(octets), _octets(octets), seconds=_SECONDS
    )
    if status == 200 and said.get("action") == "reject":
        return Finding("filters.rspamd", "ok", "rspamd rejects GTUBE")
    return Finding(
        "filters.rspamd",
        "warning",
        f"rspamd does not reject GTUBE: status {status}",
        "see its gtube_patterns, and its log",
    )


async def _listens(call: Dial, address: str) -> Finding:
    wire = await call(Place.parse(address), _SECONDS)
    wire.abort()
    return Finding("filters.listening", "ok", f"somebody listens at {address}")
