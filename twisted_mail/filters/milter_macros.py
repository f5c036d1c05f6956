"""What a milter may know besides what the commands say: "macros", with sendmail's names (its op.me, section 5.2; Postfix's
MILTER_README has the same table)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from twisted_mail.filters.milter_packets import Step
from twisted_mail.filters.origins import ReverseName
from twisted_mail.filters.values import Client, Mail
from twisted_mail.services import Recipient

__all__ = ["DEFAULT", "client_name", "macro_values", "pick"]

DEFAULT: Final[Mapping[Step, tuple[str, ...]]] = {
    Step.CONNECT: ("j", "_", "daemon_name", "client_addr", "client_name", "client_port", "client_ptr", "client_resolve", "v"),
    Step.HELO: ("tls_version", "cipher"),
    Step.MAIL: ("i", "auth_type", "auth_authen", "auth_author", "mail_addr", "mail_host", "mail_mailer"),
    Step.RCPT: ("i", "rcpt_addr", "rcpt_host", "rcpt_mailer"),
    Step.DATA: ("i",),
    Step.END_OF_HEADER: ("i",),
    Step.END_OF_BODY: ("i",),
}
"""What is told at each step to a filter that does not choose."""

_RESOLVED: Final = {"pass": "OK", "fail": "FORGED", "permerror": "FAIL", "temperror": "TEMP"}


def client_name(client: Client) -> str:
    """The peer's name that the DNS confirms, or its address in brackets; without an address, ``localhost``."""
    if not client.address:
        return "localhost"
    reverse = client.noted(ReverseName)
    return reverse.name if reverse is not None and reverse.name else f"[{client.address}]"


def macro_values(
    client: Client, mail: Mail | None, recipient: Recipient | None, hostname: str, version: str
) -> dict[str, str]:
    """Every macro that has a value now, by its name without braces."""
    name = client_name(client)
    reverse = client.noted(ReverseName)
    values = {
        "j": hostname,
        "v": version,
        "_": name if name.startswith("[") or not client.address else f"{name} [{client.address}]",
        "daemon_name": client.service,
        "client_addr": client.address,
        "client_name": name,
        "client_port": str(client.port) if client.port else "",
        "client_ptr": reverse.claimed[0] if reverse is not None and reverse.claimed else "",
        "client_resolve": _RESOLVED.get(reverse.result, "") if reverse is not None else "",
    }
    if client.secure and (found := re.match(r"TLS ?v?([\d.]+)(?: with cipher (\S+))?", client.tls_description)):
        values |= {"tls_version": f"TLSv{found[1]}", "cipher": found[2] or ""}
    if mail is not None:
        values |= {"i": mail.id} | _address("mail", mail.sender)
        if client.identity is not None:
            login = client.identity.login
            # which mechanism it was is not known here; that there was one is what filters ask
            values |= {"auth_type": "SASL", "auth_authen": login, "auth_author": mail.sender}
    if recipient is not None:
        values |= _address("rcpt", recipient.address)
        values["rcpt_mailer"] = "local" if recipient.accounts else "esmtp"
    return {key: value for key, value in values.items() if value}


def _address(of: str, address: str) -> dict[str, str]:
    return {f"{of}_addr": address, f"{of}_host": address.rpartition("@")[2] if "@" in address else "", f"{of}_mailer": "esmtp"}


def pick(values: Mapping[str, str], names: Iterable[str]) -> list[tuple[str, str]]:
    """Those of *names* (with or without braces) that have a value, as they go over the wire."""
    picked = []
    for each in names:
        name = each.removeprefix("{").removesuffix("}")
        if name in values:
            picked.append((name if len(name) == 1 else f"{{{name}}}", values[name]))
    return picked
