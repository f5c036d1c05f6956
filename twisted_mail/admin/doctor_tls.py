"""The doctor's look at certificates: there, readable, valid for long enough, for the right names, with their key."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from twisted_mail.admin.findings import Finding
from twisted_mail.tap.settings import Configuration

__all__ = ["look"]

WARN_DAYS: Final = 21
"""A certificate that has fewer days left should have been renewed: Let's Encrypt's are at 30."""


def look(configuration: Configuration, now: datetime | None = None) -> list[Finding]:
    """Findings about every certificate of *configuration*."""
    now = now or datetime.now(UTC)
    findings: list[Finding] = []
    tls = configuration.tls
    if tls.certificate is not None and tls.key is not None:
        findings += _pair("tls", tls.certificate, tls.key, (configuration.hostname,), now)
    else:
        findings += _self_signed(configuration, now)
    for number, each in enumerate(tls.sni, 1):
        findings += _pair(f"tls.sni[{number}]", each.certificate, each.key, each.names, now)
    return findings


def _self_signed(configuration: Configuration, now: datetime) -> list[Finding]:
    remedy = "set tls.certificate and tls.key to a certificate that mail programs trust"
    findings = [Finding("tls.self-signed", "warning", "no certificate is configured: a self-signed one is used", remedy)]
    path = configuration.data / "tls" / "self-signed.pem"
    if path.exists():
        # the server renews it by itself, but only when it starts
        findings += [each for each in _certificate("tls", path, (configuration.hostname,), now) if each.severity != "ok"]
    return findings


def _pair(name: str, certificate: Path, key: Path, hosts: tuple[str, ...], now: datetime) -> list[Finding]:
    findings = _certificate(name, certificate, hosts, now)
    try:
        octets = key.read_bytes()
        private = serialization.load_pem_private_key(octets, None)
    except OSError as error:
        return [*findings, Finding("tls.key", "error", f"{name}: {key}: {error.strerror}", "let the server's user read it")]
    except (ValueError, TypeError):
        return [*findings, Finding("tls.key", "error", f"{name}: {key} is not a private key without a passphrase (PEM)",
                                   "name the file that came with the certificate")]  # fmt: skip
    if key.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        findings.append(Finding("tls.key-mode", "error", f"{name}: everybody can read {key}", f"chmod o-rwx {key}"))
    try:
        leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    except (OSError, ValueError):
        return findings
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if leaf.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        findings.append(Finding("tls.mismatch", "error", f"{name}: {key} is not the key of {certificate}",
                                "name the pair that was made together; the leaf comes first in its file"))  # fmt: skip
    return findings


def _certificate(name: str, path: Path, hosts: tuple[str, ...], now: datetime) -> list[Finding]:
    try:
        leaf = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except OSError as error:
        return [Finding("tls.certificate", "error", f"{name}: {path}: {error.strerror}", "let the server's user read it")]
    except (ValueError, IndexError):
        return [Finding("tls.certificate", "error", f"{name}: {path} is not a certificate (PEM)", "name the chain's file")]
    days = (leaf.not_valid_after_utc - now).days
    findings: list[Finding] = []
    if leaf.not_valid_before_utc > now:
        findings.append(Finding("tls.early", "error", f"{name}: {path} is not valid before {leaf.not_valid_before_utc:%Y-%m-%d}",
                                "look at this machine's clock"))  # fmt: skip
    if leaf.not_valid_after_utc <= now:
        findings.append(Finding("tls.expired", "error", f"{name}: {path} ran out on {leaf.not_valid_after_utc:%Y-%m-%d}",
                                "renew it, then send the server SIGHUP"))  # fmt: skip
    elif days < WARN_DAYS:
        findings.append(Finding("tls.expires", "warning", f"{name}: {path} has {days} days left",
                                "renew it, then send the server SIGHUP"))  # fmt: skip
    else:
        findings.append(Finding("tls.valid", "ok", f"{name}: {path} has {days} days left"))
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = []
    for host in hosts:
        if host not in names and "*." + host.partition(".")[2] not in names:
            findings.append(Finding("tls.name", "warning", f"{name}: {path} is for {', '.join(names) or 'no name'}, not {host}",
                                    "get a certificate for that name, or correct hostname"))  # fmt: skip
    return findings
