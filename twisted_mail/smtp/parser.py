"""From a line to a command (RFC 5321 section 4.1). Whatever the octets are, a command comes out, perhaps a `BadCommand`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from twisted_mail.smtp.addresses import BadPath, is_address_literal, match_path, parse_mailbox
from twisted_mail.smtp.commands import (
    DATA,
    NOOP,
    QUIT,
    RSET,
    STARTTLS,
    Auth,
    BadCommand,
    Bdat,
    Command,
    Ehlo,
    Expn,
    Helo,
    Help,
    Lhlo,
    Mail,
    Rcpt,
    Vrfy,
    Xclient,
)
from twisted_mail.smtp.xclient import read_attributes

__all__ = ["VERBS", "decode_xtext", "parse_command"]

_control = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_parameter = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20=\x7f-\x9f]+))?")
_xtext = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
# RFC 6533 section 3: the address of type utf-8, in Unicode or with \x{…}
_utf8_address = re.compile(r"(?:[^\x00-\x20+=\x7f-\x9f]|\+[0-9A-F]{2})*")
_addr_type = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_greeting = re.compile(r"[^\x00-,/;-@\\^`{-\x9f]{1,255}")
_ipv6_name = re.compile(r"\[(?:ipv6:)?([0-9a-f:.]+)(?:%[a-z0-9._-]+)?\]", re.IGNORECASE)
_mechanism = re.compile(r"[A-Z0-9_-]{1,20}")
_digits = re.compile(r"[0-9]{1,20}")

MAX_PARAMETERS: Final = 16
ENVELOPE_ID_BYTES: Final = 100
"""RFC 3461 section 4.4."""
ORIGINAL_RECIPIENT_BYTES: Final = 500
"""RFC 3461 section 4.2."""


class _Malformed(Exception):
    def __init__(self, code: int, enhanced: str, text: str, *, loses_sync: bool = False) -> None:
        self.command = BadCommand(code, enhanced, text, loses_sync)


def decode_xtext(text: str) -> str:
    """What ``xtext`` stands for (RFC 3461 section 4), as UTF-8. Raises ValueError."""
    if _xtext.fullmatch(text) is None:
        raise ValueError("not xtext")
    if "+" not in text:
        return text
    head, *rest = text.split("+")
    return (head.encode() + b"".join(bytes((int(p[:2], 16),)) + p[2:].encode() for p in rest)).decode()


def parse_command(line: bytes) -> Command:
    """The command in *line*, which comes without its CRLF."""
    verb, _, rest = line.partition(b" ")
    parse = VERBS.get(verb) or VERBS.get(verb.upper().rstrip())
    if parse is None:
        return BadCommand(500, "5.5.1", "Command not recognized")
    if _control.search(rest) is not None:
        return BadCommand(501, "5.5.2", "Control characters are not allowed")
    try:
        # section 4.1.1: trailing white space is to be tolerated
        return parse(rest.decode().rstrip(" \t"))
    except UnicodeDecodeError:
        return BadCommand(501, "5.5.2", "Not UTF-8")
    except _Malformed as error:
        return error.command


# --- the session --------------------------------------------------------------------------------------------------


def _client_name(text: str) -> str:
    """The argument of EHLO. Section 4.1.4 forbids to refuse a name for what it says, so only its characters and a
    literal's form are looked at. An IPv6 address without its tag (JavaMail) or with the zone of the client's own link
    is put right: it only goes into the trace."""
    ipv6 = _ipv6_name.fullmatch(text)
    if ipv6 is not None and is_address_literal(f"[IPv6:{ipv6[1]}]"):
        return f"[IPv6:{ipv6[1]}]"
    if _greeting.fullmatch(text) is None or (text.startswith("[") and not is_address_literal(text)):
        raise _Malformed(501, "5.5.4", "A domain or an address literal is needed")
    return text


def _nothing(command: Command) -> Callable[[str], Command]:
    def parse(text: str) -> Command:
        if text:
            raise _Malformed(501, "5.5.4", "No argument is allowed")
        return command

    return parse


def _not_here(text: str) -> Command:
    return BadCommand(502, "5.5.1", "Command not implemented")


def _one_string(make: Callable[[str], Command]) -> Callable[[str], Command]:
    def parse(text: str) -> Command:
        if not text:
            raise _Malformed(501, "5.5.4", "An argument is needed")
        return make(text)

    return parse


def parse_auth(text: str) -> Auth:
    """``"AUTH" SP sasl-mech [SP initial-response]`` (RFC 4954 section 8)."""
    words = text.split(" ")
    mechanism = words[0].upper()
    if len(words) > 2 or _mechanism.fullmatch(mechanism) is None:
        raise _Malformed(501, "5.5.4", "A mechanism and at most one response are needed")
    return Auth(mechanism, words[1] if len(words) == 2 else None)


def parse_bdat(text: str) -> Bdat:
    """``"BDAT" SP chunk-size [SP "LAST"]`` (RFC 3030 section 2)."""
    size, _, last = text.partition(" ")
    if _digits.fullmatch(size) is None:
        raise _Malformed(501, "5.5.4", "A chunk size is needed", loses_sync=True)
    if last and last.upper() != "LAST":
        raise _Malformed(501, "5.5.4", "Only LAST may follow the chunk size", loses_sync=True)
    return Bdat(int(size), bool(last))


# --- the envelope -------------------------------------------------------------------------------------------------


def _parameters(rest: str) -> dict[str, str | None]:
    """``[SP esmtp-param *(SP esmtp-param)]``; more spaces than one do no harm."""
    if not rest:
        return {}
    if not rest.startswith(" "):
        raise _Malformed(501, "5.5.4", "A space is needed between the path and its parameters")
    found: dict[str, str | None] = {}
    for word in filter(None, rest.split(" ")):
        match = _parameter.fullmatch(word)
        if match is None:
            raise _Malformed(501, "5.5.4", "Malformed parameter")
        keyword = match[1].upper()
        if keyword in found or len(found) == MAX_PARAMETERS:
            raise _Malformed(501, "5.5.4", "A parameter may be given once only")
        found[keyword] = match[2]
    return found


def _after(prefix: str, text: str) -> str:
    if text[: len(prefix)].upper() != prefix:
        raise _Malformed(501, "5.5.4", f"{prefix} is needed")
    # section 3.3 forbids spaces here, old clients and devices send them, and no path begins with one
    return text[len(prefix) :].lstrip(" ")


def _value(parameters: dict[str, str | None], keyword: str) -> str | None:
    """The value of *keyword*, taken out; None when it is not there."""
    if keyword not in parameters:
        return None
    value = parameters.pop(keyword)
    if value is None:
        raise _Malformed(501, "5.5.4", f"{keyword} needs a value")
    return value


def _choice(parameters: dict[str, str | None], keyword: str, choices: tuple[str, ...], default: str) -> str:
    value = _value(parameters, keyword)
    if value is None:
        return default
    if value.upper() not in choices:
        raise _Malformed(501, "5.5.4", f"{keyword} must be one of {', '.join(choices)}")
    return value.upper()


def _no_others(parameters: dict[str, str | None]) -> None:
    if parameters:
        # section 4.1.1.11: the code for parameters that are not known
        raise _Malformed(555, "5.5.4", f"Parameter {next(iter(parameters))} is not known")


def parse_mail(text: str) -> Mail:
    """``"MAIL FROM:" Reverse-path [SP Mail-parameters]`` (section 4.1.1.2)."""
    text = _after("FROM:", text)
    if text.startswith("<>"):
        sender, rest = None, text[2:]
    else:
        try:
            sender, rest = match_path(text)
        except BadPath:
            raise _Malformed(501, "5.1.7", "Bad sender address syntax")
    if not rest:
        return Mail(sender)
    parameters = _parameters(rest)
    size = _value(parameters, "SIZE")
    if size is not None and _digits.fullmatch(size) is None:
        raise _Malformed(501, "5.5.4", "SIZE must be a number of at most 20 digits")
    body = _choice(parameters, "BODY", ("7BIT", "8BITMIME", "BINARYMIME"), "7BIT")
    dsn_return = _choice(parameters, "RET", ("FULL", "HDRS"), "")
    envelope_id = _value(parameters, "ENVID") or ""
    if len(envelope_id) > ENVELOPE_ID_BYTES or _xtext.fullmatch(envelope_id) is None:
        raise _Malformed(501, "5.5.4", "ENVID must be xtext of at most 100 characters")
    smtputf8 = "SMTPUTF8" in parameters
    if parameters.pop("SMTPUTF8", None) is not None:
        raise _Malformed(501, "5.5.4", "SMTPUTF8 takes no value")
    requiretls = "REQUIRETLS" in parameters
    if parameters.pop("REQUIRETLS", None) is not None:
        raise _Malformed(501, "5.5.4", "REQUIRETLS takes no value")
    hold_for, hold_until = _hold(_value(parameters, "HOLDFOR"), _value(parameters, "HOLDUNTIL"))
    made = Mail(
        sender,
        None if size is None else int(size),
        body,
        smtputf8,
        dsn_return,
        envelope_id,
        hold_for=hold_for,
        hold_until=hold_until,
        deliver_by=_deliver_by(_value(parameters, "BY")),
        priority=_priority(_value(parameters, "MT-PRIORITY")),
        requiretls=requiretls,
        auth=_auth_parameter(_value(parameters, "AUTH")),
    )
    _no_others(parameters)
    return made


def _hold(seconds: str | None, until: str | None) -> tuple[int | None, float | None]:
    """``HOLDFOR`` or ``HOLDUNTIL`` (RFC 4865 section 5), not both."""
    if seconds is None and until is None:
        return None, None
    if seconds is not None and until is not None:
        raise _Malformed(501, "5.5.4", "HOLDFOR and HOLDUNTIL exclude each other")
    if seconds is not None:
        if re.fullmatch(r"[1-9][0-9]{0,8}", seconds) is None:
            raise _Malformed(501, "5.5.4", "HOLDFOR must be 1 to 999999999 seconds")
        return int(seconds), None
    try:
        moment = datetime.fromisoformat(str(until).upper())
    except ValueError:
        moment = datetime.min
    if moment.tzinfo is None or "T" not in str(until).upper():
        raise _Malformed(501, "5.5.4", "HOLDUNTIL must be a date and time with a zone (RFC 3339)")
    return None, moment.timestamp()


def _deliver_by(value: str | None) -> tuple[int, str] | None:
    """``by-time ";" by-mode [by-trace]`` (RFC 2852 section 4)."""
    if value is None:
        return None
    found = re.fullmatch(r"(-?[0-9]{1,9});([NR]T?)", value.upper())
    if found is None:
        raise _Malformed(501, "5.5.4", "BY must be seconds, a semicolon, and N or R")
    if found[2].startswith("R") and int(found[1]) <= 0:
        raise _Malformed(501, "5.5.4", "BY with R must lie ahead")
    return int(found[1]), found[2]


def _priority(value: str | None) -> int | None:
    """RFC 6710 section 4."""
    if value is None:
        return None
    if re.fullmatch(r"0|-?[1-9]", value) is None:
        raise _Malformed(501, "5.5.4", "MT-PRIORITY must be -9 to 9")
    return int(value)


def _auth_parameter(value: str | None) -> str:
    """``AUTH=<>`` or a mailbox in xtext (RFC 4954 section 5)."""
    if value is None:
        return ""
    try:
        decoded = decode_xtext(value)
        if decoded != "<>":
            parse_mailbox(decoded)
    except ValueError:
        raise _Malformed(501, "5.5.4", "AUTH must be <> or a mailbox in xtext")
    return decoded


def parse_rcpt(text: str) -> Rcpt:
    """``"RCPT TO:" ( "<Postmaster@" Domain ">" / "<Postmaster>" / Forward-path ) [SP Rcpt-parameters]``
    (section 4.1.1.3)."""
    text = _after("TO:", text)
    if text[:12].lower() == "<postmaster>":
        recipient, address, rest = None, text[1:11], text[12:]
    else:
        try:
            recipient, rest = match_path(text)
        except BadPath:
            raise _Malformed(501, "5.1.3", "Bad recipient address syntax")
        address = recipient.text
    if not rest:
        return Rcpt(recipient, address)
    parameters = _parameters(rest)
    notify = _notify(_value(parameters, "NOTIFY"))
    original = _original(_value(parameters, "ORCPT"))
    _no_others(parameters)
    return Rcpt(recipient, address, notify, original)


def _notify(value: str | None) -> frozenset[str]:
    if value is None:
        return frozenset()
    words = value.upper().split(",")
    notify = frozenset(words)
    if not notify <= {"NEVER", "SUCCESS", "FAILURE", "DELAY"} or ("NEVER" in notify and len(words) > 1):
        raise _Malformed(501, "5.5.4", "NOTIFY must be NEVER, or some of SUCCESS, FAILURE, DELAY")
    return notify


def _original(value: str | None) -> str:
    if value is None:
        return ""
    kind, _, address = value.partition(";")
    grammar = _utf8_address if kind.lower() == "utf-8" else _xtext
    if (
        len(value.encode()) > ORIGINAL_RECIPIENT_BYTES
        or _addr_type.fullmatch(kind) is None
        or not address
        or grammar.fullmatch(address) is None
    ):
        raise _Malformed(501, "5.5.4", "ORCPT must be a type, a semicolon and an address in xtext")
    return value


def parse_xclient(text: str) -> Xclient:
    """``"XCLIENT" 1*( SP attribute-name "=" attribute-value )``, the values in xtext (Postfix's XCLIENT_README)."""
    words = text.split(" ")
    pairs = [(name.upper(), value) for name, _, value in (word.partition("=") for word in words if word)]
    try:
        return read_attributes([(name, decode_xtext(value)) for name, value in pairs])
    except ValueError as error:
        raise _Malformed(501, "5.5.4", f"Bad XCLIENT: {error}")


def _noop(text: str) -> Command:
    return NOOP  # section 4.1.1.9: an argument is ignored


VERBS: Final[Mapping[bytes, Callable[[str], Command]]] = {
    b"EHLO": lambda text: Ehlo(_client_name(text)),
    b"HELO": lambda text: Helo(_client_name(text)),
    b"LHLO": lambda text: Lhlo(_client_name(text)),
    b"MAIL": parse_mail,
    b"RCPT": parse_rcpt,
    b"DATA": _nothing(DATA),
    b"BDAT": parse_bdat,
    b"RSET": _nothing(RSET),
    b"NOOP": _noop,
    b"QUIT": _nothing(QUIT),
    b"VRFY": _one_string(Vrfy),
    b"EXPN": _one_string(Expn),
    b"HELP": Help,
    b"STARTTLS": _nothing(STARTTLS),
    b"AUTH": parse_auth,
    b"XCLIENT": parse_xclient,
    # appendix F.1 and RFC 1985: known by name, never carried out
    **dict.fromkeys((b"TURN", b"ETRN", b"ATRN", b"SEND", b"SOML", b"SAML"), _not_here),
}
