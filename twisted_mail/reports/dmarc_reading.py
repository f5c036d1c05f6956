"""DMARC aggregate reports of others, read: in whatever they are packed, and of whatever version they are.

They come from strangers, and many programs write them in ways of their own. So the XML has no document type and no entities
here, a bound on its size, depth and elements; what is missing in it is empty, and what is unknown is passed over.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from xml.parsers import expat

from twisted_mail.mime.parser import MessageParser
from twisted_mail.mime.part import Limits, Part
from twisted_mail.mime.transfer import UnknownEncoding, decode_transfer
from twisted_mail.reports.dmarc_aggregate import AggregateReport, DKIMRow, PublishedPolicy, Row, SPFRow
from twisted_mail.reports.packed import BadReport, clean, gunzip, unzip

__all__ = ["find_report", "read_report"]

_PACKED: Final = 4 * 1024 * 1024
_UNPACKED: Final = 16 * 1024 * 1024
"""Most octets of a report, before and after it is unpacked: XML of rows packs at 20 to 1."""
_ELEMENTS: Final = 300_000
"""Some 10,000 rows; to read so many takes half a second: for a thread."""
_DEPTH: Final = 12
_ROWS: Final = 10_000
"""Most rows that are kept."""
_RESULTS: Final = 20
_TEXT: Final = 300
_ARCHIVES: Final = frozenset(
    "application/gzip application/x-gzip application/zip application/x-zip application/x-zip-compressed "
    "application/octet-stream text/xml application/xml application/tar+gzip application/xml+gzip".split()
)
_ENDINGS: Final = (".xml", ".xml.gz", ".gz", ".zip")


# --- what it is packed in


def find_report(message: bytes) -> AggregateReport | None:
    """The report in a *message* that brings one; None: it brings none. Raises BadReport for one that cannot be read."""
    if len(message) > 2 * _PACKED:
        return None
    parser = MessageParser(Limits(depth=5, parts=20, header_bytes=65_536, text_bytes=0))
    parser.feed(message)
    for part in _attachments(parser.close().root):
        try:
            octets = decode_transfer(part.encoding, message[part.body : part.end])
        except UnknownEncoding:
            raise BadReport("a transfer encoding that is not known") from None
        if _looks_like_one(octets):
            return read_report(octets)
    return None


def _attachments(part: Part) -> Iterator[Part]:
    if part.parts:
        for child in part.parts:
            yield from _attachments(child)
        return
    names = [value for name, value in part.params if name == "name"]
    if part.disposition is not None:
        names += [value for name, value in part.disposition[1] if name == "filename"]
    if part.content_type in _ARCHIVES or any(name.lower().endswith(_ENDINGS) for name in names):
        yield part


def _looks_like_one(octets: bytes) -> bool:
    return octets[:2] == b"\x1f\x8b" or octets[:4] == b"PK\x03\x04" or b"<" in octets[:100]


def read_report(octets: bytes) -> AggregateReport:
    """Read XML, packed by gzip or ZIP or not. Raises BadReport."""
    if len(octets) > _PACKED:
        raise BadReport(f"a report of {len(octets)} octets")
    if octets[:2] == b"\x1f\x8b":
        octets = gunzip(octets, _UNPACKED)
    elif octets[:4] == b"PK\x03\x04":
        octets = unzip(octets, _UNPACKED, ".xml")
    root, rows = _parse(octets)
    if root.name != "feedback":
        raise BadReport("no feedback in it")
    return _report(root, tuple(rows))


# --- the XML


@dataclass(slots=True)
class _Element:
    name: str
    """Without a prefix, lower case."""
    text: str = ""
    children: list[_Element] = field(default_factory=list)

    def all(self, name: str) -> list[_Element]:
        return [child for child in self.children if child.name == name]

    def one(self, name: str) -> _Element:
        """The first of that name, or an empty one."""
        return next((child for child in self.children if child.name == name), _Element(name))

    def leaf(self, name: str) -> str:
        return clean(self.one(name).text.strip(), _TEXT)


class _Tree:
    """Built by expat, within bounds."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        """What ``record`` elements say; they themselves are not kept."""
        self.root = _Element("")
        self._open = [self.root]
        self._count = 0

    def begin(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > _ELEMENTS or len(self._open) > _DEPTH:
            raise BadReport("too many elements, or too deep ones")
        element = _Element(name.rpartition(":")[2].lower())
        self._open[-1].children.append(element)
        self._open.append(element)

    def end(self, name: str) -> None:
        element = self._open.pop()
        if element.name == "record" and len(self._open) == 2:
            self._open[-1].children.pop()
            if len(self.rows) < _ROWS:
                self.rows.append(_row(element))

    def text(self, text: str) -> None:
        element = self._open[-1]
        if len(element.text) < _TEXT:
            element.text += text[:_TEXT]

    def refuse(self, *anything: object) -> None:
        raise BadReport("a document type, which no report has")


def _parse(octets: bytes) -> tuple[_Element, list[Row]]:
    tree = _Tree()
    parser = expat.ParserCreate()
    parser.StartElementHandler = tree.begin
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.text
    parser.StartDoctypeDeclHandler = tree.refuse
    parser.EntityDeclHandler = tree.refuse
    try:
        parser.Parse(octets, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise error if isinstance(error, BadReport) else BadReport(f"no XML: {error}") from error
    return (tree.root.children[0] if tree.root.children else tree.root), tree.rows


def _report(root: _Element, rows: tuple[Row, ...]) -> AggregateReport:
    about, period = root.one("report_metadata"), root.one("report_metadata").one("date_range")
    published = root.one("policy_published")
    domain = published.leaf("domain").lower().removesuffix(".")
    if not domain:
        raise BadReport("it says of no domain what it is about")
    policy = PublishedPolicy(
        domain,
        published.leaf("p").lower(),
        published.leaf("sp").lower(),
        published.leaf("np").lower(),
        published.leaf("adkim").lower() or "r",
        published.leaf("aspf").lower() or "r",
        published.leaf("fo"),
        published.leaf("testing").lower() or "n",
        published.leaf("discovery_method").lower(),
    )
    return AggregateReport(
        about.leaf("org_name"),
        about.leaf("email"),
        about.leaf("report_id"),
        _moment(period.leaf("begin")),
        _moment(period.leaf("end")),
        policy,
        rows,
        about.leaf("extra_contact_info"),
        tuple(clean(each.text.strip(), _TEXT) for each in about.all("error")[:_RESULTS]),
    )


def _row(record: _Element) -> Row:
    row, who, results = record.one("row"), record.one("identifiers"), record.one("auth_results")
    evaluated = row.one("policy_evaluated")
    return Row(
        _address(row.leaf("source_ip")),
        _number(row.leaf("count")),
        evaluated.leaf("disposition").lower(),
        evaluated.leaf("dkim").lower(),
        evaluated.leaf("spf").lower(),
        who.leaf("header_from").lower(),
        who.leaf("envelope_from").lower(),
        who.leaf("envelope_to").lower(),
        tuple((each.leaf("type"), each.leaf("comment")) for each in evaluated.all("reason")[:_RESULTS]),
        tuple(
            DKIMRow(each.leaf("domain").lower(), each.leaf("selector"), each.leaf("result").lower(), each.leaf("human_result"))
            for each in results.all("dkim")[:_RESULTS]
        ),
        _spf(results.all("spf")[:_RESULTS]),
    )


def _spf(elements: Sequence[_Element]) -> tuple[SPFRow, ...]:
    return tuple(
        SPFRow(
            each.leaf("domain").lower(), each.leaf("result").lower(), each.leaf("scope") or "mfrom", each.leaf("human_result")
        )
        for each in elements
    )


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 15 else 0


def _moment(text: str) -> datetime:
    """Seconds since 1970, of some with a fraction."""
    whole = text.partition(".")[0]
    if not whole.isascii() or not whole.isdigit() or len(whole) > 11:
        raise BadReport("its dates cannot be read")
    return datetime.fromtimestamp(int(whole), UTC)
