"""``mailctl doctor``: whether the server can run here, and what is in its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from twisted_mail.admin import doctor_filters, doctor_lists, doctor_ports, doctor_storage, doctor_tls
from twisted_mail.admin.findings import Finding, worst
from twisted_mail.admin.invocation import Command, Invocation, the_invocation
from twisted_mail.admin.problems import Problem, Status
from twisted_mail.admin.running import run
from twisted_mail.tap.configuration import ConfigurationError
from twisted_mail.tap.settings import Configuration

__all__ = ["doctor"]

SECTIONS: Final = ("config", "tls", "storage", "ports", "lists", "filters")


def _configuration(configuration: Configuration) -> list[Finding]:
    findings = [Finding("config.valid", "ok", "the configuration is good")]
    if "." not in configuration.hostname:
        findings.append(
            Finding(
                "config.hostname",
                "warning",
                f"the server's name is {configuration.hostname}: other servers refuse a name without a domain",
                "set hostname to the name that the MX record has",
            )
        )
    open_to = [str(each) for each in configuration.auth.allow_cleartext if each.num_addresses > 1 << 24]
    if open_to:
        findings.append(
            Finding(
                "config.cleartext",
                "warning",
                f"passwords may come without TLS from {', '.join(open_to)}",
                "keep auth.allow_cleartext to networks of your own",
            )
        )
    return findings


def _lists(configuration: Configuration) -> list[Finding]:
    if not doctor_lists.asked(configuration):
        return [Finding("lists.none", "ok", "no list in the DNS is asked")]
    return run(lambda reactor: doctor_lists.look(reactor, configuration))


def _filters(configuration: Configuration) -> list[Finding]:
    if not doctor_filters.asked(configuration):
        return [Finding("filters.none", "ok", "no daemon judges mail")]
    return run(lambda reactor: doctor_filters.look(reactor, configuration))


def _examine(invocation: Invocation, sections: tuple[str, ...]) -> list[Finding]:
    try:
        configuration = invocation.configuration()
    except ConfigurationError as error:
        return [
            Finding("config.invalid", "error", str(problem), "docs/reference/configuration.md says what may stand there")
            for problem in error.problems
        ]
    found: list[Finding] = []
    looks: dict[str, Callable[[], list[Finding]]] = {
        "config": lambda: _configuration(configuration),
        "tls": lambda: doctor_tls.look(configuration),
        "storage": lambda: doctor_storage.look(configuration),
        "ports": lambda: doctor_ports.look(configuration),
        "lists": lambda: _lists(configuration),
        "filters": lambda: _filters(configuration),
    }
    for section in sections:
        found += looks[section]()
    if "storage" in sections and not any(each.severity == "error" for each in found if each.code.startswith("storage.")):

        async def inside(reactor: Any) -> list[Finding]:
            return await doctor_storage.look_inside(reactor, configuration)

        found += run(inside)
    return found


@click.command("doctor", cls=Command)
@click.argument("sections", nargs=-1, type=click.Choice(SECTIONS), metavar="[config|tls|storage|ports|lists|filters]...")
def doctor(sections: tuple[str, ...]) -> None:
    """Look whether the server can run here: configuration, certificates, store, ports, lists in the DNS, daemons that
    judge mail.

    Default: all.

    Each finding has a code, a severity and a remedy. Exit status 1 if one is an error. Changes nothing.
    """
    invocation = the_invocation()
    findings = _examine(invocation, sections or SECTIONS)
    result = worst(findings)
    out = invocation.out
    if out.as_json:
        out.one({"result": result, "findings": [each.as_json() for each in findings]})
    else:
        for each in findings:
            out.text(f"{each.severity:8}{each.code:20} {each.text}")
            if each.remedy:
                out.text(f"{'':29}-> {each.remedy}")
    if result == "error":
        errors = sum(each.severity == "error" for each in findings)
        raise Problem(Status.FAILED, "doctor", f"{errors} errors")
