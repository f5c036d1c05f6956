"""Who runs a mail exchanger: domains with their mail at one provider share its limits and its opinion of our addresses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["provider_of", "registered_domain"]

_PROVIDERS: Final[dict[str, str]] = {
    # Suffix of an exchanger's name -> the provider's name. Only where it differs from the registered domain.
    "googlemail.com": "google.com",
    "psmtp.com": "google.com",
    "outlook.com": "outlook.com",
    "hotmail.com": "outlook.com",
    "mx.microsoft": "outlook.com",
    "outlook.cn": "outlook.com",
    "office365.us": "outlook.com",
    "yahoodns.net": "yahoo.com",
    "mail.yahoo.co.jp": "yahoo.co.jp",
    "icloud.com": "icloud.com",
    "apple.com": "icloud.com",
    "protonmail.ch": "proton.me",
    "protonmail.com": "proton.me",
    "gpphosted.com": "pphosted.com",
    "ppe-hosted.com": "pphosted.com",
    "gmx.com": "gmx.net",
    "web.de": "gmx.net",
    "mail.com": "gmx.net",
    "1and1.com": "ionos.com",
    "1and1.co.uk": "ionos.com",
    "1and1.fr": "ionos.com",
    "1und1.de": "ionos.com",
    "kundenserver.de": "ionos.com",
    "ionos.de": "ionos.com",
    "ionos.fr": "ionos.com",
    "ionos.es": "ionos.com",
    "ionos.co.uk": "ionos.com",
    "perfora.net": "ionos.com",
    "zoho.eu": "zoho.com",
    "zoho.in": "zoho.com",
    "zohomail.com": "zoho.com",
    "messagingengine.com": "fastmail.com",
    "yandex.net": "yandex.ru",
    "yandex.com": "yandex.ru",
    "mxs.mail.ru": "mail.ru",
    "netease.com": "163.com",
    "mx.aol.com": "yahoo.com",
    "mimecast-offshore.com": "mimecast.com",
    "mimecast.co.za": "mimecast.com",
    "mimecast.com.au": "mimecast.com",
    "ess.barracudanetworks.com": "barracudanetworks.com",
    "iphmx.com": "iphmx.com",
    "messagelabs.com": "messagelabs.com",
    "secureserver.net": "godaddy.com",
    "wanadoo.fr": "orange.fr",
    "ovh.ca": "ovh.net",
    "one.com": "one.com",
    "mailgun.org": "mailgun.com",
}
"""Names of the providers' exchangers as they publish them in their MX records and documents for operators."""

_SECOND_LEVEL: Final = frozenset({"ac", "co", "com", "edu", "gob", "go", "gov", "gv", "ltd", "me", "mil", "ne", "net", "nom",
                                  "or", "org", "plc", "sch"})  # fmt: skip
"""Labels below a country's domain under which others register."""


def registered_domain(name: str) -> str:
    """The part of *name* (A-labels) that somebody registered, by a rule of thumb: two labels, three below ``co.uk`` and the like.

    It only groups destinations; where it errs, two providers share a limit or one has two.
    """
    labels = name.split(".")
    if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL:
        return ".".join(labels[-3:])
    return ".".join(labels[-2:])


def _provider(host: str) -> str:
    labels = host.split(".")
    for start in range(len(labels)):
        if known := _PROVIDERS.get(".".join(labels[start:])):
            return known
    return registered_domain(host)


def provider_of(hosts: Iterable[str]) -> str:
    """The group of a domain whose most preferred exchangers are *hosts* (at least one).

    Of several, the one that most of them belong to; the same whatever their order.
    """
    counted: dict[str, int] = {}
    for host in hosts:
        provider = _provider(host)
        counted[provider] = counted.get(provider, 0) + 1
    return min(counted, key=lambda provider: (-counted[provider], provider))
