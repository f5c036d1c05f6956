"""The words of sending: where a message goes, what goes in one transaction, and what was heard.

Everything here is a value; `routing` makes routes, `tls_policy` says how they must be protected, `pools` says from where
they are gone, `sending` carries a parcel along one and brings verdicts back, `worker` decides what comes of them.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted_mail.smtp.client.replies import Stage

__all__ = [
    "Addressee",
    "Host",
    "Login",
    "Octets",
    "Parcel",
    "PolicyNote",
    "Protection",
    "Result",
    "Route",
    "RouteFailure",
    "Sending",
    "Source",
    "Stage",
    "TLSFailure",
    "TLSMode",
    "Verdict",
]

Octets = Callable[[], AsyncIterator[bytes]]
"""The octets of a message with CRLF line ends, from the beginning, in chunks of at most 64 KiB; may be called again."""


# --- where it goes


@dataclass(frozen=True, slots=True)
class Host:
    """One server that takes mail for a destination."""

    name: str
    """Its name (A-labels), for TLS and for the trace; an address literal or a socket's path where there is no name."""
    addresses: tuple[str, ...]
    """IP addresses in the order in which to try them (RFC 8305 interleaves); or one path of a UNIX socket."""
    port: int = 25
    preference: int = 0
    secure: bool = False
    """Its address records were validated by DNSSEC (RFC 7672 section 2.2)."""
    alias: str = ""
    """What its name led to, where it is a CNAME."""


@dataclass(frozen=True, slots=True)
class Login:
    """For a smart host (RFC 4954)."""

    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Route:
    """How a domain is reached now."""

    domain: str
    """The recipients' domain (A-labels), or the literal."""
    destination: str
    """What limits and connections are counted by: the same for domains with the same servers, e.g. ``google.com`` for
    all that have their MX there; the smart host for a configured route."""
    hosts: tuple[Host, ...]
    """In the order in which to try them: by preference, equal ones shuffled (RFC 5321 section 5.1)."""
    lmtp: bool = False
    login: Login | None = None
    implicit_tls: bool = False
    """TLS from the first octet (RFC 8314)."""
    smart_host: bool = False
    """From the configuration, not from MX records: MTA-STS does not apply (RFC 8461 section 2)."""
    secure: bool = False
    """The MX records were validated by DNSSEC, or the route is an operator's own."""
    ttl: float = 60.0
    """Seconds that it may be used."""


class RouteFailure(Exception):
    """There is no way to the domain, now (`permanent` False) or for good; `reply` has code and enhanced code, as the RFCs
    say for each: e.g. ``556 5.1.10`` null MX (RFC 7505), ``550 5.1.2`` no such domain, ``451 4.4.3`` DNS does not answer."""

    def __init__(self, reply: str, *, permanent: bool) -> None:
        super().__init__(reply)
        self.reply = reply
        self.permanent = permanent


# --- how it is protected


class TLSMode(enum.Enum):
    """What a connection must have."""

    OFF = "off"
    OPPORTUNISTIC = "opportunistic"
    """TLS if offered, whatever the certificate says (RFC 7435); in the clear if not."""
    ENCRYPTED = "encrypted"
    """TLS or nothing; the certificate is not looked at."""
    VERIFIED = "verified"
    """TLS with a certificate of the right name from an authority."""
    DANE = "dane"
    """TLS with a certificate that the TLSA records name (RFC 7672)."""


class TLSFailure(enum.Enum):
    """What a session broke on, in the words of RFC 8460 section 4.3."""

    STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
    CERTIFICATE_HOST_MISMATCH = "certificate-host-mismatch"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_TRUSTED = "certificate-not-trusted"
    VALIDATION_FAILURE = "validation-failure"
    """Anything else: no common version, a broken handshake, no TLSA record that matches."""
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    DANE_REQUIRED = "dane-required"
    STS_POLICY_FETCH_ERROR = "sts-policy-fetch-error"
    STS_POLICY_INVALID = "sts-policy-invalid"
    STS_WEBPKI_INVALID = "sts-webpki-invalid"


@dataclass(frozen=True, slots=True)
class PolicyNote:
    """A published policy as TLS reports name it (RFC 8460 section 4.4)."""

    kind: str
    """``tlsa``, ``sts`` or ``no-policy-found``."""
    domain: str
    """Whose policy it is: the recipients' domain for MTA-STS and for none, the TLSA base domain for DANE."""
    strings: tuple[str, ...] = ()
    """The policy's lines, or its TLSA records."""
    mx: tuple[str, ...] = ()
    """The patterns of an MTA-STS policy."""
    recipients: str = ""
    """The recipients' domain, whose ``_smtp._tls`` record says where the report goes."""


@dataclass(frozen=True, slots=True)
class Protection:
    """What is asked of a connection to one host, and why; made by `tls_policy`."""

    mode: TLSMode
    why: str = ""
    """For the trace and the report: ``mta-sts``, ``dane``, ``requiretls``, ``configuration``, or empty."""
    names: tuple[str, ...] = ()
    """Reference identifiers of the certificate, for VERIFIED and for DANE-TA."""
    tlsa: tuple[object, ...] = ()
    """`dns.values.TLSA` records, for DANE."""
    requiretls: bool = False
    """The server must offer REQUIRETLS too (RFC 8689 section 4.2.1)."""
    testing: bool = False
    """An MTA-STS policy in testing mode: the certificate should be of one of `names`, what is wrong with it is only reported
    (RFC 8461 section 5)."""
    policy: PolicyNote | None = None
    """What the outcome is counted by; None: it is not (a smart host)."""


# --- from where


@dataclass(frozen=True, slots=True)
class Source:
    """The local end of a connection."""

    address: str | None = None
    """An IP address of this machine; None: what the system chooses."""
    helo: str = ""
    """The name given in EHLO; empty: the server's own."""
    pool: str = ""


# --- what goes, and what came of it


@dataclass(frozen=True, slots=True)
class Addressee:
    """One recipient of a transaction."""

    address: str
    notify: frozenset[str] = frozenset()
    """NOTIFY (RFC 3461 section 4.1); empty: not given."""
    original: str = ""
    """ORCPT as given, e.g. ``rfc822;ann@example.org``."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One transaction: one message, its recipients at one destination."""

    sender: str
    """The reverse-path; empty for the null one."""
    addressees: tuple[Addressee, ...]
    octets: Octets
    size: int
    eight_bit: bool = False
    """The body has octets above 127 (BODY=8BITMIME is announced where it is offered; else it is refused 5.6.3, as a relay
    must not alter what is signed)."""
    smtputf8: bool = False
    """An address or the header needs RFC 6531: refused 5.6.7 where SMTPUTF8 is not offered and the addresses need it."""
    envelope_id: str = ""
    """ENVID (RFC 3461), or empty."""
    dsn_return: str = ""
    """RET: FULL, HDRS or empty."""
    deliver_by: tuple[float, str] | None = None
    """Seconds left and the mode ``R`` or ``N`` with its trace flag (RFC 2852)."""
    priority: int | None = None
    """MT-PRIORITY -9..9 (RFC 6710)."""
    requiretls: bool = False


class Result(enum.Enum):
    DELIVERED = "delivered"
    """2xx after the message."""
    TEMPORARY = "temporary"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one recipient in one attempt."""

    result: Result
    reply: str
    """What the server said, one line, code first (``250 2.0.0 OK``); our own words, in the same form, if it said nothing."""
    stage: Stage
    host: str = ""
    """The server's name and address as ``mx1.example.org[192.0.2.1]``; empty if none was reached."""
    source: str = ""
    """The local address."""
    tls: str = ""
    """``TLS1.3 with cipher …, dane``; empty: in the clear."""
    about_connection: bool = False
    """It is about the server or its address, not about this message or recipient: another host of the route may be tried,
    and the destination's rate is to be lowered (no connection, 421, a 4xx or 5xx greeting, TLS that is required and missing)."""
    dsn: bool = False
    """The server offers DSN and was told what is wished: a report of success is its business now (RFC 3461 section 5.2.2)."""
    remote: bool = True
    """`reply` are the server's own words (Remote-MTA and Diagnostic-Code in a bounce)."""
    note: str = ""
    """What else the trace should tell, e.g. why the message went in the clear though TLS was offered."""


class Sending(Protocol):
    """Carries parcels; keeps connections for the next one."""

    async def send(
        self,
        route: Route,
        parcel: Parcel,
        source: Source,
        protections: Callable[[Host], Protection | RouteFailure],
        before_end: Callable[[], bool],
    ) -> Sequence[Verdict]:
        """One verdict for each addressee, in order; never raises but when cancelled, which ends the conversation.

        Hosts are tried in order while the verdict is about the connection. *before_end* is asked just before the final dot (or
        the last octets of BDAT LAST): False means that the lease is lost; nothing more is sent, the connection is dropped, and
        the verdicts are temporary at stage BODY.
        """
