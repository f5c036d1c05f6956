"""Charsets: from octets and a label to text, whatever the label and whatever the octets (RFC 2045 section 5, RFC 2047).

Mail lies about charsets, so a label is a hint. `decode` never raises: an alias or a wider superset is tried first
(gb2312 is read as gb18030, iso-8859-1 as windows-1252), then UTF-8 where the octets are that, then windows-1252.
"""

from __future__ import annotations

import codecs
from functools import lru_cache
from typing import Final

__all__ = ["decode", "decode_unlabelled", "python_codec"]

_ALIASES: Final = {
    # Supersets that senders mean when they name the smaller set.
    "us-ascii": "ascii",
    "ascii": "ascii",
    "ansi_x3.4-1968": "ascii",
    "iso-8859-1": "cp1252",
    "iso8859-1": "cp1252",
    "iso_8859-1": "cp1252",
    "latin1": "cp1252",
    "latin-1": "cp1252",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "gb_2312-80": "gb18030",
    "x-gbk": "gb18030",
    "cp936": "gb18030",
    "ks_c_5601-1987": "cp949",
    "ks_c_5601": "cp949",
    "euc-kr": "cp949",
    "x-windows-949": "cp949",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "sjis": "cp932",
    "x-sjis": "cp932",
    "windows-31j": "cp932",
    "iso-8859-9": "cp1254",
    "iso-8859-8-i": "iso8859-8",
    "iso-8859-8-e": "iso8859-8",
    "iso-8859-6-i": "iso8859-6",
    "iso-2022-jp": "iso2022_jp_ext",
    "iso-2022-cn": "gb18030",
    "tis-620": "cp874",
    "windows-874": "cp874",
    "x-euc-jp": "euc_jp",
    "big5-hkscs": "big5hkscs",
    "x-big5": "big5hkscs",
    "big5": "big5hkscs",
    "x-mac-roman": "mac_roman",
    "macintosh": "mac_roman",
    "x-mac-cyrillic": "mac_cyrillic",
    "unicode-1-1-utf-8": "utf-8",
    "utf8": "utf-8",
    "x-unknown": "",
    "unknown": "",
    "unknown-8bit": "",
    "default": "",
    # UTF-7 hides text from every filter that does not know it, and no honest sender of today needs it.
    "utf-7": "",
    "utf7": "",
    "unicode-1-1-utf-7": "",
    "x-unicode-1-1-utf-7": "",
    "csunicode11utf7": "",
}
_REFUSED: Final = frozenset({"utf-7", "idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem"})


@lru_cache(maxsize=512)
def python_codec(label: str) -> str | None:
    """The codec to read *label* with, or None: unknown, refused, or no text encoding at all."""
    name = label.strip().strip("\"'").lower()
    name = _ALIASES.get(name, name)
    if not name or not name.isascii() or len(name) > 60 or "\x00" in name:
        return None
    for form in _forms(name):
        try:
            info = codecs.lookup(form)
        except (LookupError, ValueError, ImportError, AttributeError):
            continue
        # `_is_text_encoding` keeps rot13, hex, zlib and their like out; it is what bytes.decode itself asks.
        if info.name.replace("_", "-") in _REFUSED or not getattr(info, "_is_text_encoding", True):
            return None
        return info.name
    return None


def _forms(name: str) -> tuple[str, ...]:
    """Spellings to try: ``cp-1252``, ``x-cp1252``, ``windows1252``, ``iso88591`` are all met."""
    forms = [name]
    plain = name.removeprefix("x-").replace("_", "-")
    forms.append(plain)
    digits = plain.lstrip("abcdefghijklmnopqrstuvwxyz-")
    if plain.startswith(("cp", "windows", "win", "ms", "ibm")) and digits.isdigit():
        forms.append("cp" + digits)
    if plain.startswith("iso8859"):
        forms.append("iso8859-" + plain.removeprefix("iso8859").lstrip("-"))
    if plain.startswith("iso-8859"):
        forms.append("iso8859-" + plain.removeprefix("iso-8859").lstrip("-"))
    return tuple(form for form in forms if form in _ALIASES or form.isascii())


def decode(data: bytes, label: str | None) -> str:
    """*data* as text, read by *label* as far as that makes sense. Never raises."""
    codec = python_codec(label) if label else None
    if codec is None or codec == "ascii":
        return decode_unlabelled(data)
    try:
        return data.decode(codec)
    except (UnicodeError, ValueError, LookupError):
        pass
    if codec == "utf-8":
        return _mostly_utf8(data)
    try:
        # Octets of UTF-8 under another label are common; those of others seldom are valid UTF-8 by chance.
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:
        return data.decode(codec, "replace")
    except (UnicodeError, ValueError, LookupError):
        return _windows(data)


def decode_unlabelled(data: bytes) -> str:
    """*data* as UTF-8 if it is that (RFC 6532), else by windows-1252."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _mostly_utf8(data)


def _mostly_utf8(data: bytes) -> str:
    """UTF-8 that was cut or touched keeps its good characters; what has hardly any of them is windows-1252."""
    text = data.decode("utf-8", "replace")
    sample = text[:4096]
    bad = sample.count("\ufffd")
    wide = sum(character > "\x7f" for character in sample) - bad
    return text if wide > bad or not bad else _windows(data)


def _windows(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")
