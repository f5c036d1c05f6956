"""DNS messages (RFC 1035, 6891): one question out, and what a reply to exactly that question says.

dnspython writes and reads the octets. What a reply means is decided here: who sends it may be anybody that can guess a port
and a number, so whatever is not an answer to the question is not looked at.
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

__all__ = ["EDNS_OCTETS", "Kind", "Question", "Reply", "read_reply"]

EDNS_OCTETS: Final = 1232
"""What fits any path without fragments (DNS flag day 2020, RFC 9715)."""
_HEADER: Final = 12
_QR_AND_OPCODE: Final = 0xF8
_REPLY_TO_QUERY: Final = 0x80
_LONGEST_TTL: Final = 0x7FFF_FFFF
_RRSETS: Final = 2_000
"""A message of 64 KiB can hold some 5,000 records; nobody needs that many sets of them."""


class Kind(enum.Enum):
    """What came back."""

    RECORDS = "records"
    """At least one record of the wanted type, at the end of the aliases."""
    NO_DATA = "no data"
    """The name exists, the type does not (RFC 2308 section 2.2)."""
    NO_NAME = "no name"
    ALIAS = "alias"
    """A chain of CNAMEs that leads out of this reply."""
    TRUNCATED = "truncated"
    NO_EDNS = "no EDNS"
    """FORMERR, NOTIMP or BADVERS to a question with EDNS: an old server (RFC 6891 section 7)."""
    FAILED = "failed"
    """SERVFAIL, REFUSED, or nothing that can be read: another server may know better."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question, ready to be sent and to be compared with what comes."""

    name: str
    """A-labels, lower case."""
    type: str
    id: int
    asked: dns.name.Name
    """The name as it is sent, perhaps in mixed case."""
    octets: bytes
    section: int
    """Length of the question section, which follows the header: name, type and class."""
    mixed_case: bool
    edns: bool

    @classmethod
    def make(
        cls, name: str, type: str, rng: random.Random, *, dnssec: bool, edns: bool = True, mix_case: bool = False
    ) -> Question:
        """Numbered at random. With *dnssec* it asks for validation and signatures (DO, and AD: RFC 6840 section 5.7)."""
        spelled = "".join(rng.choice((letter.lower(), letter.upper())) for letter in name) if mix_case else name
        asked = dns.name.from_text(spelled + ".", idna_codec=None)
        number = rng.randrange(65536)
        flags = dns.flags.RD | (dns.flags.AD if dnssec else 0)
        if edns:
            message = dns.message.make_query(
                asked, type, want_dnssec=dnssec, use_edns=0, payload=EDNS_OCTETS, id=number, flags=flags
            )
        else:
            message = dns.message.make_query(asked, type, use_edns=False, id=number, flags=flags)
        return cls(name, type, number, asked, message.to_wire(), len(asked.to_wire() or b"") + 4, mix_case, edns)


@dataclass(frozen=True, slots=True)
class Reply:
    """What one reply says of the question."""

    kind: Kind
    records: tuple[dns.rdata.Rdata, ...] = ()
    name: str = ""
    """Where the chain of aliases ended (A-labels): the records' owner, what does not exist, or what is to be asked next."""
    ttl: float = 0.0
    """Seconds; of a negative answer as RFC 2308 section 5 has it, 0 where nothing says so."""
    authentic: bool = False
    """The AD bit, as it was sent."""
    aliases: int = 0
    """How many CNAMEs there were on the way."""
    why: str = ""


def read_reply(question: Question, octets: bytes, *, most_aliases: int) -> Reply | None:
    """What *octets* say; None: they are no reply to *question* (RFC 5452 section 9.1) and must be ignored."""
    if not _answers(question, octets):
        return None
    try:
        message = dns.message.from_wire(octets, ignore_trailing=True, continue_on_error=True)
    except (dns.exception.DNSException, ValueError, IndexError) as error:
        return Reply(Kind.FAILED, why=f"a reply that cannot be read ({type(error).__name__})")
    code = message.rcode()
    if message.flags & dns.flags.TC:
        return Reply(Kind.TRUNCATED)
    if question.edns and code in (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS):
        return Reply(Kind.NO_EDNS, why=dns.rcode.to_text(code))
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return Reply(Kind.FAILED, why=dns.rcode.to_text(code))
    if message.errors:
        return Reply(Kind.FAILED, why="a record that cannot be read")
    return _conclude(question, message, code == dns.rcode.NXDOMAIN, most_aliases)


def _answers(question: Question, octets: bytes) -> bool:
    """The header and the question section are those of a reply to this very question."""
    asked = question.octets[_HEADER : _HEADER + question.section]
    if len(octets) < _HEADER or octets[:2] != question.octets[:2] or octets[2] & _QR_AND_OPCODE != _REPLY_TO_QUERY:
        return False
    count = int.from_bytes(octets[4:6], "big")
    if count != 1:
        # Some servers leave the question out of a refusal; that only counts as such.
        return count == 0 and octets[3] & 0x0F not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
    # The first name of a message is never compressed. Octets of lengths are below those of letters: only letters change case.
    theirs = octets[_HEADER : _HEADER + question.section]
    if question.mixed_case:
        return theirs == asked
    return theirs[:-4].lower() == asked[:-4].lower() and theirs[-4:] == asked[-4:]


def _conclude(question: Question, message: dns.message.Message, denied: bool, most_aliases: int) -> Reply:
    """Follow the aliases within the answer section; records of other names there mean nothing (RFC 2181 section 5.4.1)."""
    wanted = dns.rdatatype.from_text(question.type)
    owners: dict[tuple[dns.name.Name, int], dns.rrset.RRset] = {}
    for rrset in message.answer[:_RRSETS]:
        if rrset.rdclass == dns.rdataclass.IN:
            owners.setdefault((rrset.name, rrset.rdtype), rrset)
    authentic = bool(message.flags & dns.flags.AD)
    name, seen, ttl = question.asked, {question.asked}, float(_LONGEST_TTL)
    while True:
        if found := owners.get((name, wanted)):
            if denied:
                return Reply(Kind.FAILED, why="NXDOMAIN together with records")
            return Reply(
                Kind.RECORDS, tuple(found), _text(name), min(ttl, float(found.ttl)), authentic, aliases=len(seen) - 1
            )
        alias = owners.get((name, dns.rdatatype.CNAME))
        if alias is None:
            break
        ttl = min(ttl, float(alias.ttl))
        name = alias[0].target
        if name in seen:
            return Reply(Kind.FAILED, why=f"CNAMEs in a circle at {_text(name)}")
        seen.add(name)
        if len(seen) - 1 > most_aliases:
            return Reply(Kind.FAILED, why="too many CNAMEs in a row")
    denial = _denial_seconds(message, name)
    if denied:
        kind = Kind.NO_NAME
    elif len(seen) > 1 and denial is None:
        return Reply(Kind.ALIAS, (), _text(name), ttl, authentic, aliases=len(seen) - 1)
    elif denial is None and any(rrset.rdtype == dns.rdatatype.NS for rrset in message.authority):
        return Reply(Kind.FAILED, why="a referral: the server does not answer recursive questions")
    else:
        kind = Kind.NO_DATA
    return Reply(kind, (), _text(name), min(ttl, denial or 0.0), authentic, aliases=len(seen) - 1)


def _denial_seconds(message: dns.message.Message, name: dns.name.Name) -> float | None:
    """For how long the denial holds (RFC 2308 section 5); None: no SOA of the name's own zone stands with it."""
    for rrset in message.authority[:_RRSETS]:
        if rrset.rdtype == dns.rdatatype.SOA and name.is_subdomain(rrset.name):
            return float(min(rrset.ttl, rrset[0].minimum))
    return None


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()
