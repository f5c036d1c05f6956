"""Every setting there is: its kind, its default, what it means.

Each section is a frozen dataclass whose fields are made by `setting`; checking, environment variables, and the
reference in docs/reference/configuration.md all follow from these declarations. Durations are floats of seconds,
sizes are octets.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from twisted_mail.tap.declaring import section, setting
from twisted_mail.tap.filtering import FilterSettings, SieveSettings
from twisted_mail.tap.kinds import (
    Choice,
    Duration,
    Endpoint,
    Files,
    Flag,
    Hostname,
    Many,
    Network,
    NetworkType,
    Pairs,
    Size,
    StorageURL,
    Text,
    Whole,
)
from twisted_mail.tap.sending import DNSSettings, RelaySettings, SigningSettings

__all__ = [
    "LATER",
    "LISTENERS",
    "ROLES",
    "AccountSettings",
    "AuthSettings",
    "Certificate",
    "Configuration",
    "DeliverySettings",
    "IMAPSettings",
    "LimitSettings",
    "ListenSettings",
    "POP3Settings",
    "ProcessSettings",
    "SMTPSettings",
    "SearchSettings",
    "StorageSettings",
    "TLSSettings",
    "ThreadSettings",
    "listeners_of",
    "role_of",
]


def _host_name() -> str:
    """This machine's name, as far as it is one that mail can use."""
    name = socket.gethostname()
    return name if name.replace("-", "").replace(".", "").isalnum() else "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenSettings:
    """Where each service listens. In the file, a listener that is left out does not listen; without a `[listen]` table
    all those with a default do. "haproxy:" in front of an endpoint: behind a proxy that speaks the PROXY protocol
    (`smtp.trusted`)."""

    smtp: tuple[str, ...] = setting(
        Many(Endpoint()), ["tcp:8025"], "Mail from other servers (RFC 5321). The usual port is 25."
    )
    submission: tuple[str, ...] = setting(
        Many(Endpoint()),
        ["tcp:8587"],
        "Mail from our own users, who log in (RFC 6409); encrypted by STARTTLS. The usual port is 587.",
    )
    submissions: tuple[str, ...] = setting(
        Many(Endpoint()),
        ["tcp:8465"],
        "The same, encrypted from the start (RFC 8314). The usual port is 465.",
    )
    lmtp: tuple[str, ...] = setting(
        Many(Endpoint()),
        ["tcp:8024:interface=127.0.0.1"],
        "Mail from a server of ours in front (RFC 2033). It is trusted: keep it on loopback or a UNIX socket, "
        'e.g. "unix:/run/mail/lmtp:mode=660".',
    )
    imap: tuple[str, ...] = setting(
        Many(Endpoint()), ["tcp:8143"], "IMAP4rev1 and IMAP4rev2, encrypted by STARTTLS. The usual port is 143."
    )
    imaps: tuple[str, ...] = setting(
        Many(Endpoint()), ["tcp:8993"], "IMAP, encrypted from the start. The usual port is 993."
    )
    pop3: tuple[str, ...] = setting(
        Many(Endpoint()), ["tcp:8110"], "POP3, encrypted by STLS. The usual port is 110."
    )
    pop3s: tuple[str, ...] = setting(
        Many(Endpoint()), ["tcp:8995"], "POP3, encrypted from the start. The usual port is 995."
    )
    managesieve: tuple[str, ...] = setting(
        Many(Endpoint()),
        ["tcp:8419"],
        "ManageSieve, by which users upload the scripts that sort their mail (RFC 5804), encrypted by STARTTLS. The usual "
        "port is 4190.",
    )
    http: tuple[str, ...] = setting(
        Many(Endpoint()),
        [],
        "The page that links for unsubscribing lead to (`relay.unsubscribe`), behind what ends TLS. The web client comes later.",
    )
    metrics: tuple[str, ...] = setting(
        Many(Endpoint()),
        [],
        "HTTP for probes and for Prometheus: /healthz, /readyz, /metrics. Open to whoever reaches it: keep it on an inner "
        "network. Every node has it, whatever its roles.",
    )


LISTENERS: Final = ("smtp", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s", "managesieve", "http")
"""Where people and servers are served; `metrics` is beside them."""
ROLES: Final = ("smtp", "submission", "lmtp", "imap", "pop3", "managesieve", "http", "delivery", "relay")


def role_of(listener: str) -> str:
    """The role that opens *listener*: ``imaps`` belongs to ``imap``."""
    return {"submissions": "submission", "imaps": "imap", "pop3s": "pop3"}.get(listener, listener)


def listeners_of(configuration: Configuration) -> tuple[str, ...]:
    """Names of the listeners that this configuration opens: those that have endpoints, and a role of this node."""
    return tuple(
        name
        for name in (*LISTENERS, "metrics")
        if getattr(configuration.listen, name) and (name == "metrics" or role_of(name) in configuration.roles)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A further certificate for other host names (SNI, RFC 6066 section 3)."""

    names: tuple[str, ...] = setting(
        Many(Text("a host name, or one with a wildcard", r"(\*\.)?[A-Za-z0-9_.-]+"), least=1),
        None,
        'Host names that it is for; "*.example.org" stands for all one level below.',
        "must be given",
    )
    certificate: Path = setting(Files(), None, "Its certificate chain (PEM).", "must be given")
    key: Path = setting(Files(), None, "Its private key (PEM).", "must be given")


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSSettings:
    """Certificates. With none given a self-signed pair is made in the data folder at the first start. They are read
    again on SIGHUP."""

    certificate: Path | None = setting(
        Files(optional=True), "", "The certificate chain (PEM), leaf first. Goes with `key`."
    )
    key: Path | None = setting(Files(optional=True), "", "The private key (PEM). Goes with `certificate`.")
    minimum: str = setting(Choice(("1.2", "1.3")), "1.2", "The oldest version of TLS that is spoken.")
    sni: tuple[Certificate, ...] = section(
        Certificate, "Certificates for other host names, as `[[tls.sni]]` tables.", many=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """Who may log in, and how."""

    allow_cleartext: tuple[NetworkType, ...] = setting(
        Many(Network()),
        ["127.0.0.0/8", "::1/128"],
        "Networks from which a password may come without TLS. UNIX sockets always may.",
    )
    failures_per_minute: int = setting(
        Whole(zero="no limit"),
        10,
        "Failed logins a minute, counted per address and per login, before further ones are refused unseen.",
    )
    argon2_memory: int = setting(
        Size(low=8 << 10, high=4 << 30),
        "19MiB",
        "Memory that hashing a password takes (argon2id, RFC 9106). Applies to passwords that are set from now on.",
    )
    argon2_passes: int = setting(Whole(1, 1000), 2, "Passes over that memory.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Bounds that hold for every protocol. What is over a limit is refused with the protocol's own words."""

    connections: int = setting(
        Whole(zero="no limit"), 10_000, "Connections at a time, over all listeners, in one process."
    )
    connections_per_address: int = setting(
        Whole(zero="no limit"), 50, "Connections at a time from one address, in one process."
    )
    message_bytes: int = setting(
        Size(low=64 << 10, high=1 << 31),
        52_428_800,
        "The largest message, by SMTP and LMTP (SIZE, RFC 1870) and by IMAP (APPENDLIMIT, RFC 7889).",
    )
    login: float = setting(
        Duration(low=1, high=86_400),
        "2m",
        "How long a connection to IMAP, POP3 or submission may stay without having logged in.",
    )
    bad_commands: int = setting(
        Whole(zero="no limit"),
        20,
        "Commands in a row that are no commands before a connection is ended.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SMTPSettings:
    """SMTP, submission and LMTP."""

    recipients: int = setting(
        Whole(100, 100_000), 1000, "Recipients of one message (RFC 5321 section 4.5.3.1.8: at least 100)."
    )
    command: float = setting(
        Duration(low=1, high=86_400),
        "5m",
        "How long to wait for the next command (RFC 5321 section 4.5.3.2.7: 5 minutes).",
    )
    data: float = setting(
        Duration(low=1, high=86_400), "10m", "How long to wait for the next octets of a message (section 4.5.3.2.6)."
    )
    strict_line_ends: bool = setting(
        Flag(),
        True,
        "Whether a message with any bare CR or LF is refused. Off: only those beside a dot, which servers read differently "
        "(smuggling).",
    )
    refused_recipients: int = setting(
        Whole(zero="no limit"),
        100,
        "Refused recipients in a row before a connection is ended (address harvesting).",
    )
    trusted: tuple[NetworkType, ...] = setting(
        Many(Network()),
        [],
        "Networks of proxies and relays of ours, which are believed when they say for whom they have connected: by the PROXY "
        'protocol (versions 1 and 2), to an endpoint of any listener with "haproxy:" in front, as in "haproxy:tcp:8025"; and by '
        "XCLIENT, which SMTP and submission then offer them. UNIX sockets are believed without being named.",
    )
    submitters: Mapping[NetworkType, str] = setting(
        Pairs(
            Text("the address of an account", r"[^\s@]+@[^\s@]+", empty=False),
            Network(),
            "a table of networks and accounts",
        ),
        {},
        "Networks that may submit mail without logging in, each with the account as which it does, as in "
        '`{ "10.1.0.0/16" = "printer@example.org" }`: printers, monitoring, programs on this machine. The account\'s sender '
        "addresses, limits and stream are theirs; see [mail without a login](../how-to/send-without-a-login.md). Who is in "
        "`smtp.trusted` is never meant itself, only the clients that it names.",
    )
    hops: int = setting(
        Whole(10, 1000), 100, "Received fields in a message before it is taken for a loop (RFC 5321 section 6.3)."
    )
    straight: float = setting(
        Duration(low=0.1, high=300),
        "5s",
        "How long the store has to take a message before it goes into the queue instead, on a node with the role "
        "`delivery`. The peer hears 250 either way.",
    )
    subaddress: str = setting(
        Text("one of + - = _ . or empty", r"[-+=_.]?"),
        "+",
        "What parts a user from a detail, as in user+tag (RFC 5233). Empty: no sub-addresses.",
    )
    subaddress_folders: bool = setting(
        Flag(),
        False,
        "Whether mail to `user+detail` goes into the mailbox `detail` where the user has one; else, and where a script sorts it, "
        "as mail to the user.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """Mail that waits in the inbound queue. A node with the role `delivery` takes it out and puts it into accounts."""

    concurrent: int = setting(Whole(1, 1000), 16, "Items that one process works on at a time.")
    lease: float = setting(
        Duration(low=2, high=3600),
        "1m",
        "How long an item stays with a node that is not heard of any more. It is held on to while it is worked on.",
    )
    expire: float = setting(
        Duration(low=60, high=60 * 86_400),
        "5d",
        "How long an item is tried. After that it is held as a dead letter, until `mailctl queue` releases or deletes it.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IMAPSettings:
    """IMAP."""

    separator: str = setting(
        Choice(("/", ".")), "/", "Between the levels of a mailbox name. May be changed at any time: names are kept in levels."
    )
    idle: float = setting(
        Duration(low=1, high=604_800),
        "30m",
        "How long a session may be silent, IDLE included (RFC 9051 section 5.4: at least 30 minutes).",
    )
    command: float = setting(
        Duration(low=1, high=86_400), "5m", "How long one command may run before its connection is ended."
    )
    line_bytes: int = setting(
        Size(low=8192, high=16 << 20), "64KiB", "The longest command without its literals (RFC 7162 section 4: 8192 or more)."
    )
    literal_bytes: int = setting(
        Size(low=4096, high=64 << 20),
        "64KiB",
        "The largest literal that is not a message. Messages are held to limits.message_bytes.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class POP3Settings:
    """POP3."""

    idle: float = setting(
        Duration(low=1, high=604_800), "10m", "How long a session may be silent (RFC 1939 section 3: at least 10 minutes)."
    )
    login_delay: float = setting(
        Duration(high=86_400, zero="none"),
        "0s",
        "The least time between two logins of one user (LOGIN-DELAY, RFC 2449 section 6.5).",
    )


_SPECIAL_USES: Final = ("", "all", "archive", "drafts", "flagged", "junk", "sent", "trash")

_DEFAULT_MAILBOXES: Final = {
    "Drafts": "drafts",
    "Sent": "sent",
    "Junk": "junk",
    "Trash": "trash",
    "Archive": "archive",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSettings:
    """What a new account has, and how long its past is kept."""

    mailboxes: Mapping[str, str] = setting(
        Pairs(
            Choice(_SPECIAL_USES),
            Text("a mailbox name", r"[^\x00-\x1f*%]+", empty=False),
            "a table of mailbox names and their special uses",
        ),
        _DEFAULT_MAILBOXES,
        "Mailboxes that a new account has beside INBOX, each with its special use (RFC 6154: all, archive, drafts, "
        'flagged, junk, sent, trash) or "". Levels are parted by "/" here, whatever imap.separator is.',
        '{ Drafts = "drafts", Sent = "sent", Junk = "junk", Trash = "trash", Archive = "archive" }',
    )
    retention: float = setting(
        Duration(high=366 * 86_400),
        "7d",
        "How long the log of an account keeps what was changed or deleted.",
    )
    cache: int = setting(
        Size(low=1 << 20, high=1 << 40),
        "256MiB",
        "Memory of a process for accounts that nobody has open at the moment: who comes back finds them read already.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """Where everything is kept. Nothing here: embedded, in the data folder. Engines are found by the URL's scheme; a
    package may bring its own (entry-point group `twisted_mail.storage`)."""

    metadata: str = setting(StorageURL(), "sqlite:", "Accounts: their log, message rows, lists, the directory.")
    blobs: str = setting(StorageURL(), "file:", "Attachments and other large octets.")
    messaging: str = setting(
        StorageURL(optional=True), "", "Queue, bus and cache together. Empty: the metadata engine's, and this machine's."
    )
    queue: str = setting(StorageURL(optional=True), "", "The queue alone. Empty: as `messaging`.")
    bus: str = setting(StorageURL(optional=True), "", "Notifications between nodes alone. Empty: as `messaging`.")
    cache: str = setting(StorageURL(optional=True), "", "Small shared values and throttles alone. Empty: as `messaging`.")
    sweep: float = setting(
        Duration(high=86_400, zero="never"),
        "30m",
        "How often a node looks for blobs that nobody needs any more. One node at a time does the work, in proportion to what "
        "was deleted; a blob goes an hour after it was found first.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Searching."""

    engine: str = setting(
        Choice(("auto", "tantivy", "whoosh", "none")),
        "auto",
        "The word index, a shard for each account. `auto`: Tantivy where it is installed, else Whoosh. All nodes use the same "
        "one: each has shards of its own. Nothing fills it in this version: every search scans the stored text, which is "
        "exact.",
    )
    shards: str = setting(
        Choice(("auto", "local")),
        "auto",
        "Where the shards lie. `auto`: in the object store where `storage.blobs` is one, else in the data folder. `local`: in "
        "the data folder of each node in any case.",
    )
    cache: int = setting(
        Size(low=1 << 20, high=1 << 44),
        "1GiB",
        "Disk in the data folder for shards of the object store that are in use, in each process.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """Processes, and how they end."""

    workers: int = setting(
        Whole(1, 1024), 1, "Processes that serve. More than one have a master, which restarts what dies. Also `--workers`."
    )
    drain: float = setting(
        Duration(low=0, high=3600),
        "30s",
        "How long SIGTERM waits for what is in flight: no new connections, idle sessions are told, then the rest is ended.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadSettings:
    """Sizes of the thread pools in each process. Nothing else runs in them than what their name says."""

    storage: int = setting(Whole(1, 64), 4, "Reading the embedded store (its writer has a thread of its own).")
    blobs: int = setting(Whole(1, 64), 4, "Reading and writing blobs.")
    spool: int = setting(Whole(1, 64), 2, "Keeping large messages on disk while they come in.")
    passwords: int = setting(Whole(1, 64), 2, "Hashing passwords, which takes a processor for some 50 ms each.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The whole of it."""

    hostname: str = setting(
        Hostname(),
        _host_name,
        "The name of this server: in greetings, in Received fields, in the certificate it makes for itself.",
        "the machine's name",
    )
    data: Path = setting(Files(), "mail-data", "The folder of the embedded store, and of what is made at the first start.")
    roles: tuple[str, ...] = setting(
        Many(Choice(ROLES), least=1),
        list(ROLES),
        "What this node does. `smtp`, `submission`, `lmtp`, `imap`, `pop3`, `managesieve`: it opens these listeners, as far as "
        "`[listen]` names them (`submissions`, `imaps` and `pop3s` go along). `delivery`: mail that it accepts goes straight into "
        "the store, and it takes what waits in the queue; without it, everything it accepts is queued for others. "
        "`relay`: it sends what waits for other domains. `http`: the page for unsubscribing.",
        "all of them",
    )
    node: str = setting(
        Text("a name of letters, digits, - _ and .", r"[A-Za-z0-9._-]{0,64}"),
        "",
        "The name of this node among the others, each its own. Several workers add their numbers. Empty: the machine's "
        "name and the worker's number, so two servers on one machine need one each.",
    )
    listen: ListenSettings = section(ListenSettings, "Listeners.")
    tls: TLSSettings = section(TLSSettings, "Certificates.")
    auth: AuthSettings = section(AuthSettings, "Logging in.")
    limits: LimitSettings = section(LimitSettings, "Bounds for every protocol.")
    smtp: SMTPSettings = section(SMTPSettings, "SMTP, submission and LMTP.")
    delivery: DeliverySettings = section(DeliverySettings, "The inbound queue.")
    imap: IMAPSettings = section(IMAPSettings, "IMAP.")
    pop3: POP3Settings = section(POP3Settings, "POP3.")
    dns: DNSSettings = section(DNSSettings, "Name servers.")
    relay: RelaySettings = section(RelaySettings, "Mail for other domains.")
    signing: SigningSettings = section(SigningSettings, "Signatures.")
    filters: FilterSettings = section(FilterSettings, "Filters.")
    sieve: SieveSettings = section(SieveSettings, "Sieve.")
    account: AccountSettings = section(AccountSettings, "Accounts.")
    storage: StorageSettings = section(StorageSettings, "Storage.")
    search: SearchSettings = section(SearchSettings, "Searching.")
    process: ProcessSettings = section(ProcessSettings, "Processes.")
    threads: ThreadSettings = section(ThreadSettings, "Thread pools.")


LATER: Final[Mapping[tuple[str, ...], str]] = MappingProxyType(
    {
        ("listen", "https"): "there is no HTTP server",
    }
)
"""Keys of rooms that do not exist yet, and what holds instead. They are refused, not ignored."""
