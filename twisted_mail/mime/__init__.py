"""MIME: one pass over a message gives its part tree with offsets and everything that protocols ask for in bulk.

Start with `MessageParser`; then `parser`, `node` (one part), `rendering` (ENVELOPE, BODYSTRUCTURE), `texts` and `fold`
(search), `sections` (BODY[…]). Imports nothing of ours.
"""

from twisted_mail.mime.addresses import Address, Group, Mailbox, mailboxes_of, parse_addresses
from twisted_mail.mime.dates import Moment, parse_date
from twisted_mail.mime.fold import fold, match_body, match_header, match_text
from twisted_mail.mime.headers import (
    COMMON_FIELDS,
    Field,
    all_values,
    common_header,
    filter_fields,
    first_value,
    iterate_fields,
    unfold,
)
from twisted_mail.mime.message import ParsedMessage
from twisted_mail.mime.parameters import Structured, parse_content_type, parse_structured
from twisted_mail.mime.parser import MessageParser
from twisted_mail.mime.part import Limits, Part, decode_layout, encode_layout
from twisted_mail.mime.rendering import nstring, render_envelope, string
from twisted_mail.mime.sections import Section, SectionLike, Span, find_part, locate
from twisted_mail.mime.texts import part_text
from twisted_mail.mime.threads import base_subject, message_ids
from twisted_mail.mime.transfer import TransferDecoder, UnknownEncoding, decode_transfer
from twisted_mail.mime.words import decode_header

__all__ = [
    "COMMON_FIELDS",
    "Address",
    "Field",
    "Group",
    "Limits",
    "Mailbox",
    "MessageParser",
    "Moment",
    "ParsedMessage",
    "Part",
    "Section",
    "SectionLike",
    "Span",
    "Structured",
    "TransferDecoder",
    "UnknownEncoding",
    "all_values",
    "base_subject",
    "common_header",
    "decode_header",
    "decode_layout",
    "decode_transfer",
    "encode_layout",
    "filter_fields",
    "find_part",
    "first_value",
    "fold",
    "iterate_fields",
    "locate",
    "mailboxes_of",
    "match_body",
    "match_header",
    "match_text",
    "message_ids",
    "nstring",
    "parse_addresses",
    "parse_content_type",
    "parse_date",
    "parse_structured",
    "part_text",
    "render_envelope",
    "string",
    "unfold",
]
