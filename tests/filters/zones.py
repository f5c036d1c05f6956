"""Zone data of the openspf.org test suites as a `TableDNS`."""

from __future__ import annotations

import ipaddress
from typing import Any

from tests.dns.fakes import TableDNS
from twisted_mail.dns.values import MX, Answer, DNSFailure

__all__ = ["ZoneDNS", "zone"]


class ZoneDNS(TableDNS):
    """Names in any case; reversed ones under their own names; what times out does so for all types that are not there."""

    timeouts: set[str]

    async def _ask(self, name: str, type: str) -> Answer[Any]:
        name = name.lower()
        if type == "PTR":
            name = ipaddress.ip_address(name).reverse_pointer
        if name in self.timeouts and (name, type) not in self.table:
            self.asked.append((name, type))
            raise DNSFailure("timeout")
        return await super()._ask(name, type)


def zone(data: dict[str, list[Any]]) -> ZoneDNS:
    """Records of type SPF (99), which RFC 7208 has done away with, stand for TXT ones where a name has none of those."""
    table: dict[tuple[str, str], Any] = {}
    timeouts: set[str] = set()
    for host, items in data.items():
        name = host.lower().rstrip(".")
        named = [each for each in items if isinstance(each, dict)]
        if "TIMEOUT" in items:
            timeouts.add(name)
        own = any("TXT" in each for each in named)
        for each in named:
            [(type, value)] = each.items()
            if value == "NONE":
                continue
            if type == "SPF":
                if own:
                    continue
                type = "TXT"
            if value == "TIMEOUT":
                table[name, type] = DNSFailure("timeout")
                continue
            table.setdefault((name, type), []).append(_record(type, value))
        table.setdefault((name, "?"), [])  # it exists, whatever it has
    made = ZoneDNS(table)
    made.timeouts = timeouts
    return made


def _record(type: str, value: Any) -> Any:
    match type:
        case "TXT":
            return b"".join(part.encode("latin-1") for part in ([value] if isinstance(value, str) else value))
        case "MX":
            return MX(int(value[0]), str(value[1]).rstrip("."))
        case "AAAA":
            return str(ipaddress.ip_address(value))
        case "PTR" | "CNAME":
            return str(value).rstrip(".").lower()
        case _:
            return value
