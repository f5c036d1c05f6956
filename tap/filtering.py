"""Settings of mail that comes in: what looks at it, what its verdicts are worth, and users' scripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from twisted_mail.filters.builtin_score import rules_from
from twisted_mail.filters.dnsbl import zones_from
from twisted_mail.filters.early_talkers import points_from
from twisted_mail.filters.helo import checks_from
from twisted_mail.filters.rates import DEFAULT_LIMITS, limits_from
from twisted_mail.filters.wires import Place
from twisted_mail.tap.declaring import section, setting
from twisted_mail.tap.kinds import (
    Choice,
    Duration,
    Flag,
    Kind,
    Many,
    Network,
    NetworkType,
    Number,
    Parsed,
    Size,
    Text,
    Whole,
)

__all__ = [
    "ClamAVSettings",
    "FilterSettings",
    "MilterSettings",
    "PolicySettings",
    "RspamdSettings",
    "SieveSettings",
    "SpamAssassinSettings",
]


def _place(text: str) -> str:
    if text:
        Place.parse(text)
    return text


_ADDRESS: Final[Kind] = Parsed(_place, 'an address: "127.0.0.1:783", "unix:/run/clamd.sock", or empty', str)
_WHEN_DOWN: Final[Kind] = Choice(("accept-and-mark", "defer", "queue"))
_WHEN_DOWN_SAYS: Final = (
    "What becomes of mail while it does not answer: it is delivered and says so in its header and trace, the peer is told to "
    "come back, or it waits in the queue and is looked at before it is delivered."
)


def _timeout(default: str) -> Any:
    return setting(Duration(low=0.1, high=3600), default, "How long it has for a whole message.")


def _when_down(default: str = "accept-and-mark") -> Any:
    return setting(_WHEN_DOWN, default, _WHEN_DOWN_SAYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpamAssassinSettings:
    """SpamAssassin's spamd. Used where an address is given."""

    address: str = setting(_ADDRESS, "", "Where spamd listens.")
    timeout: float = _timeout("60s")
    when_down: str = _when_down()
    largest: int = setting(Size(low=1024, high=1 << 30), "512KiB", "Longer messages are not shown to it.")
    per_user: bool = setting(
        Flag(), True, "Whether it is told for whom a message is, where that is one user: its own rules and Bayes are used."
    )
    learning: bool = setting(
        Flag(), True, "Whether moving mail into or out of Junk teaches it (spamd must have been started with --allow-tell)."
    )
    at_once: int = setting(Whole(1, 1000), 8, "Messages that it is shown at the same time, by each process.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RspamdSettings:
    """rspamd. Used where a URL is given."""

    url: str = setting(
        Text('a URL such as "http://127.0.0.1:11333", or empty', r"(http://[^\s/]+/?)?"), "", "Its worker for scanning."
    )
    controller: str = setting(
        Text('a URL such as "http://127.0.0.1:11334", or empty', r"(http://[^\s/]+/?)?"),
        "",
        "Its controller, which is taught by mail that is moved into or out of Junk. Empty: it is not taught.",
    )
    password: str = setting(Text(), "", "Of its workers, where they have one.")
    timeout: float = _timeout("30s")
    when_down: str = _when_down()
    largest: int = setting(Size(low=1024, high=1 << 30), "10MiB", "Longer messages are not shown to it.")
    at_once: int = setting(Whole(1, 1000), 8, "Messages that it is shown at the same time, by each process.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClamAVSettings:
    """ClamAV's clamd. Used where an address is given. Mail of your own users is shown to it too."""

    address: str = setting(_ADDRESS, "", "Where clamd listens.")
    timeout: float = _timeout("60s")
    when_down: str = _when_down("defer")
    infected: str = setting(
        Choice(("reject", "quarantine")), "reject", "What becomes of infected mail. It is never delivered."
    )
    unscannable: str = setting(
        Choice(("mark", "junk", "quarantine", "reject")),
        "mark",
        "What becomes of what it cannot look into: encrypted archives, what is beyond its limits.",
    )
    largest: int = setting(
        Size(low=1024, high=1 << 40),
        "25MiB",
        "It is shown so much of a message at most: not more than clamd's own StreamMaxLength.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MilterSettings:
    """A milter: OpenDKIM, clamav-milter, … They are asked in this order."""

    address: str = setting(_ADDRESS, None, "Where it listens.", "must be given")
    name: str = setting(Text("a name", r"[a-z0-9_-]{0,32}"), "", "In traces and metrics. Empty: `milter1`, `milter2` and so on.")
    outbound: bool = setting(Flag(), False, "Whether it is shown the mail of your own users too (a milter that signs).")
    timeout: float = _timeout("60s")
    when_down: str = _when_down()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """A policy server of Postfix's protocol: postgrey, policyd-spf, … They are asked in this order."""

    address: str = setting(_ADDRESS, None, "Where it listens.", "must be given")
    name: str = setting(Text("a name", r"[a-z0-9_-]{0,32}"), "", "In traces and metrics. Empty: `policy1`, `policy2` and so on.")
    at: tuple[str, ...] = setting(
        Many(Choice(("connect", "helo", "mail", "rcpt", "data", "end-of-message", "message")), least=1),
        ["rcpt"],
        "When it is asked; most such servers want to be asked about recipients only. `message` is another name of "
        "`end-of-message`.",
    )
    context: str = setting(Text("a word", r"[!-~]{0,100}"), "", "What it is told as policy_context.")
    outbound: bool = setting(Flag(), False, "Whether it is asked about your own users too.")
    timeout: float = _timeout("10s")
    when_down: str = _when_down()


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterSettings:
    """What looks at mail that comes in. Without this table: who sent it (SPF, DKIM, DMARC, ARC) and a small score of our
    own; with daemons as far as they are named. See [judging mail](../explanation/judging-mail.md)."""

    enabled: bool = setting(Flag(), True, "Whether anything looks at mail at all.")
    junk_score: float = setting(
        Number(0.1, 1000), 5.0, "Points at and above which a message goes to Junk; users may have their own."
    )
    reject_score: float = setting(
        Number(0.1, 10_000, "never"), 15.0, "Points at and above which it is refused, whoever it is for."
    )
    trusted: tuple[NetworkType, ...] = setting(
        Many(Network()),
        ["127.0.0.0/8", "::1/128"],
        "Networks of your own servers: what comes from there is shown to daemons and milters only, as mail by LMTP is.",
    )
    origin: bool = setting(
        Flag(), True, "Whether it is looked at who sent it: SPF, the reverse name, DKIM, ARC, DMARC. It takes a name server."
    )
    dmarc: str = setting(
        Choice(("enforce", "score")),
        "enforce",
        "What becomes of mail that fails DMARC: what its domain asks for (refused, or to Junk), or points only.",
    )
    sealers: tuple[str, ...] = setting(
        Many(Text("a domain or .suffix", r"\.?[^\s@]+")),
        [],
        "Domains that forward mail and whose ARC seals are believed: what they saw pass DMARC does not fail here.",
    )
    dmarc_reports: str = setting(
        Text("an address, or empty", r"([^\s@]+@[^\s@]+)?"),
        "",
        "From whom DMARC aggregate reports are sent to domains that ask for them, daily (RFC 9990), and to whom others' come: "
        "those are read, and `mailctl dmarc` tells them. Empty: none are sent.",
    )
    dmarc_discovery: Literal["treewalk", "psl"] = setting(
        Choice(("treewalk", "psl")),
        "treewalk",
        "How it is found out which domains belong together: by the DNS (RFC 9989), or by the public suffix list (RFC 7489).",
    )
    builtin_score: str = setting(
        Choice(("auto", "on", "off")),
        "auto",
        "Whether points are given for who sent it and for oddities of its header and text. `auto`: where neither SpamAssassin nor "
        "rspamd is asked, which look at the same.",
    )
    bayes: bool = setting(
        Flag(), True, "Whether the words of a message count for each user by what was moved into and out of Junk."
    )
    bayes_least: int = setting(
        Whole(1, 2000), 30, "So many messages of each kind must have been moved before they count for the next one."
    )
    bayes_points: float = setting(
        Number(0.1, 1000), 3.5, "Points for what a user's mail says is certainly spam; for the opposite two thirds are taken away."
    )
    score_rules: Any = setting(
        Parsed(rules_from, "a table of rules and points"),
        {},
        "Other points for rules of the built-in score, by their names in the trace: `{ only_html = 0, self_sent = 4.0 }`.",
    )
    early_talkers: float | None = setting(
        Parsed(points_from, 'a number of points, or "reject"', object),
        3.0,
        'Points for a peer that speaks before it is greeted, or "reject". 0: it is not looked at.',
    )
    greeting: float = setting(
        Duration(high=30, zero="at once"), "1s", "How long the greeting is held back from strangers, to find them out."
    )
    helo: Any = setting(
        Parsed(checks_from, "a table of checks and points"),
        {},
        'Points for what is odd about HELO and the reverse name, or "reject": syntax, bare_address, literal, own_name, '
        "own_address, unqualified, unresolvable, mismatch, no_reverse, unconfirmed_reverse, dynamic. What is left out has "
        "its usual points, from 0.2 to 3.",
    )
    dnsbl: Any = setting(
        Parsed(zones_from, "a table of lists and points"),
        {},
        'Lists of addresses in the DNS, and points for who is on them: `{ "zen.example" = 5.0, "wl.example" = { '
        '"127.0.*.3" = -3.0 } }`. Below 0 they speak for the peer.',
    )
    dnsbl_domains: Any = setting(
        Parsed(zones_from, "a table of lists and points"), {}, "The same for lists of domains: the sender's, and HELO's."
    )
    dnsbl_reject: float = setting(
        Number(0.1, 1000, "never"), 0, "With so many points of all lists the peer is refused before the message comes."
    )
    greylisting: bool = setting(
        Flag(), False, "Whether mail from strangers is put off once (RFC 6647); those that come back are remembered."
    )
    greylisting_delay: float = setting(Duration(low=1, high=86_400), "5m", "The shortest time for which it is put off.")
    rates: Any = setting(
        Parsed(limits_from, 'a list of limits such as "messages per sender 100/1h"', list),
        list(DEFAULT_LIMITS),
        "Limits over all nodes: connections, messages, recipients or unknown (recipients), per address, network, helo, sender, "
        "sender_domain, recipient or login, and in what time. Above them the peer is put off, or with `tarpit` slowed down.",
        "[" + ", ".join(f'"{limit}"' for limit in DEFAULT_LIMITS) + "]",
    )
    attachments: str = setting(
        Choice(("off", "mark", "junk", "quarantine", "reject")),
        "off",
        "What becomes of mail with programs and the like attached, in archives too. Mail of your own users is looked at too.",
    )
    attachment_types: tuple[str, ...] = setting(
        Many(Text("an extension without its dot", r"[A-Za-z0-9_-]+")),
        [],
        "Extensions of such attachments. Empty: the usual ones (programs, scripts, documents with macros).",
    )
    attachments_encrypted: str = setting(
        Choice(("accept", "mark", "junk", "quarantine", "reject")),
        "mark",
        "What becomes of mail with archives that nobody can look into without a password, where `attachments` is on.",
    )
    rest: float = setting(
        Duration(low=0.1, high=3600),
        "30s",
        "How long a filter that did not answer five times in a row is left alone; then one question tries it again.",
    )
    keywords_teach: bool = setting(
        Flag(),
        True,
        "Whether the keywords `$Junk`, `$NotJunk`, `Junk`, `NonJunk` and `NotJunk` teach as moves into and out of Junk do. "
        "Thunderbird's own filter sets two of them by itself.",
    )
    story: bool = setting(Flag(), True, "Whether what was found is kept for two weeks, for `mailctl trace`.")
    order: tuple[str, ...] = setting(
        Many(Text("the name of a filter", r"[a-z0-9_-]+")),
        [],
        "Which go first: of two that refuse a message the first one's reason is given. Those left out follow in the usual "
        "order: rates, policies, early_talkers, iprev, helo, dnsbl, spf, greylisting, milters, dkim, arc, dmarc, attachments, "
        "clamav, spamassassin, rspamd, builtin_score. All that wait are asked side by side in any case, behind those whose results "
        "they use.",
    )
    spamassassin: SpamAssassinSettings = section(SpamAssassinSettings, "SpamAssassin.")
    rspamd: RspamdSettings = section(RspamdSettings, "rspamd.")
    clamav: ClamAVSettings = section(ClamAVSettings, "ClamAV.")
    milters: tuple[MilterSettings, ...] = section(MilterSettings, "Milters.", many=True)
    policies: tuple[PolicySettings, ...] = section(PolicySettings, "Policy servers.", many=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SieveSettings:
    """Users' scripts (RFC 5228), which they upload by ManageSieve."""

    max_redirects: int = setting(Whole(0, 100), 4, "Redirects of one message.")
    vacation_min_days: int = setting(Whole(1, 365), 1, "The shortest time between two answers to one sender.")
    script_bytes: int = setting(Size(low=1024, high=16 << 20), "1MiB", "The longest script.")
    scripts: int = setting(Whole(1, 1000), 30, "Scripts of one user.")
