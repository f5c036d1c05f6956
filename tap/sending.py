"""Settings of mail that leaves: name servers, the relay, signatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted_mail.dns.servers import parse_server
from twisted_mail.relay.static_routes import parse_static_route
from twisted_mail.tap.declaring import section, setting
from twisted_mail.tap.kinds import (
    Checked,
    Choice,
    Duration,
    Flag,
    Many,
    Network,
    NetworkType,
    Pairs,
    Tables,
    Text,
    Whole,
)

__all__ = ["DNSSettings", "RelaySettings", "SigningSettings", "TimeoutSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DNSSettings:
    """Name servers: recursive resolvers, which are asked where mail goes."""

    servers: tuple[str, ...] = setting(
        Many(Checked(parse_server, "the address of a name server: 192.0.2.1, 192.0.2.1:5353, [2001:db8::1]:53")),
        [],
        "Which are asked. Empty: those of /etc/resolv.conf.",
    )
    dnssec: bool = setting(
        Flag(),
        False,
        "Whether they validate DNSSEC and the way to them is safe (loopback): then their AD bit is believed, and DANE (RFC 7672) "
        "protects mail to domains that have it.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutSettings:
    """How long another server may take (RFC 5321 section 4.5.3.2)."""

    connect: float = setting(Duration(low=0.1, high=3600), "30s", "For a connection.")
    command: float = setting(Duration(low=0.1, high=86_400), "5m", "For the answer to a command.")
    data: float = setting(Duration(low=0.1, high=86_400), "10m", "For the answer to the end of a message.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """Mail for other domains. With this table in the file (it may be empty) those who log in may send to the world; a node
    with the role `relay` takes it out of the queue and delivers it."""

    enabled: bool = setting(
        Flag(), False, "Whether mail for other domains is taken.", "on where there is a `[relay]` table, else off"
    )
    port: int = setting(Whole(1, 65_535), 25, "Where other servers listen.")
    concurrent: int = setting(
        Whole(1, 20_000), 500, "Recipients that one process works on at a time, over all destinations."
    )
    connections: int = setting(
        Whole(1, 1000),
        20,
        "Connections at a time to one destination. It begins with three, and success brings more.",
    )
    lease: float = setting(
        Duration(low=5, high=3600),
        "2m",
        "How long an item belongs to the process that took it, unless it is extended: what a process had that was killed is tried "
        "again after so long.",
    )
    retry: tuple[float, ...] = setting(
        Many(Duration(low=1, high=30 * 86_400), least=1),
        ["5m", "15m", "30m", "1h", "2h", "4h"],
        "After what time a message is tried again, after the first attempt, the second, …; the last again and again. A fifth more "
        "or less, so that not everything comes at once.",
    )
    warn: float = setting(
        Duration(high=60 * 86_400, zero="never"), "4h", "After what time its sender is told that it takes longer."
    )
    expire: float = setting(
        Duration(low=60, high=60 * 86_400),
        "5d",
        "After what time it is given up, and returned (RFC 5321 section 4.5.4.1: four or five days).",
    )
    hold: float = setting(
        Duration(high=366 * 86_400, zero="not offered"),
        "30d",
        "How far ahead a client may put off a delivery (FUTURERELEASE, RFC 4865).",
    )
    tls: str = setting(
        Choice(("opportunistic", "require", "off")),
        "opportunistic",
        "What connections to other servers have: TLS where it is offered, TLS or nothing, or none. What a domain publishes "
        "(MTA-STS, DANE) can only raise it.",
    )
    mta_sts_port: int = setting(Whole(1, 65_535), 443, "Where MTA-STS policies are fetched (RFC 8461).")
    refused: tuple[NetworkType, ...] = setting(
        Many(Network()),
        ["127.0.0.0/8", "::1/128"],
        "Networks to which no MX record leads, whoever says so. Routes of your own may.",
    )
    ipv6: bool = setting(Flag(), True, "Whether this machine reaches other servers by IPv6.")
    tls_reports: str = setting(
        Text("an address, or empty", r"([^\s@]+@[^\s@]+)?"),
        "",
        "From whom reports about TLS are sent to other domains, daily (RFC 8460). Empty: none are sent.",
    )
    complaints: tuple[str, ...] = setting(
        Many(Text("an address", r"[^\s@]+@[^\s@]+", empty=False)),
        [],
        "Addresses of yours that other servers send complaints to (feedback loops, ARF, RFC 5965): they are read, and who "
        "complains gets nothing more of that stream.",
    )
    unsubscribe: str = setting(
        Text("a URL beginning with https:// (or http://), or empty", r"(https?://[^\s<>\"]+)?"),
        "",
        "Where the page for one-click unsubscribe (RFC 8058) is reached from outside, e.g. https://mail.example.org/unsubscribe: "
        "`listen.http` answers there, behind what ends TLS. Mail of streams with `one_click` (by default `marketing`) gets links "
        "to it. Empty: it is not added.",
    )
    timeouts: TimeoutSettings = section(TimeoutSettings, "Time limits towards other servers.")
    routes: Mapping[str, str] = setting(
        Pairs(
            Checked(parse_static_route, "smtp://user:password@host:port, smtps://…, lmtp://host:port, lmtp+unix:///path"),
            Text("a domain, .suffix or *", r"\*|\.?[^\s@*]+"),
            "a table of domains and where their mail goes",
        ),
        {},
        'Instead of MX records: "partner.example" (a domain), ".example" (all below it) or "*" (all others), and a server: '
        '"smtp://user:password@relay.example:587", "lmtp://host:24", "lmtp+unix:///run/lmtp".',
    )
    pools: Mapping[str, Any] = setting(
        Tables(),
        {},
        "Source addresses by pool, as `[relay.pools.NAME]` tables with `addresses` (a table of address and HELO name), "
        "`warm_up` (the first day of their plan) and `daily`: see "
        "[sending and reputation](../explanation/sending-and-reputation.md). None: the system chooses the address.",
    )
    streams: Mapping[str, Any] = setting(
        Tables(),
        {},
        "Kinds of mail, as `[relay.streams.NAME]` tables with `pools` and `match`: a message is in the first that matches, and "
        "leaves by its pools only; `normal` takes what no other does.",
    )
    providers: Mapping[str, Any] = setting(
        Tables(),
        {},
        "Large receivers by name, each a list of the domains of their mail servers: plans for warming up count by them.",
    )
    warm_up: Mapping[str, Any] = setting(
        Tables(), {}, "How addresses are warmed up: the curve, and what makes a plan step back."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningSettings:
    """Signatures of mail that leaves. A domain is signed for once it has keys: `mailctl dkim add`."""

    lifetime: float = setting(
        Duration(low=86_400, high=366 * 86_400, zero="for good"), "14d", "How long a signature holds (`x=`)."
    )
    seal: str = setting(
        Text("a domain, or empty", r"[^\s@]*"),
        "",
        "The domain whose key seals mail that is forwarded (ARC, RFC 8617). Empty: it is not sealed.",
    )
    srs: str = setting(
        Text("a domain, or empty", r"[^\s@]*"),
        "",
        "The domain in the rewritten sender of mail that is forwarded (SRS), so that SPF holds. Empty: senders stay as they are.",
    )
