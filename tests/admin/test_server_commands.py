"""init, config, doctor, version, completion, and the reference that is made from all commands."""

from __future__ import annotations

import datetime
import os
import socket
import threading
from pathlib import Path
from unittest.mock import patch

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.admin.calling import Mailctl
from twisted_mail.admin import doctor_storage, doctor_tls, reference
from twisted_mail.admin.cli import NOUNS, call
from twisted_mail.admin.doctor_ports import endpoint_parts
from twisted_mail.auth.passwords import matches
from twisted_mail.tap.configuration import load

ROOT = Path(__file__).resolve().parents[2]


# --- init


def test_init_makes_a_server_that_is_ready(tmp_path: Path) -> None:
    ctl = Mailctl(tmp_path)
    folder = tmp_path / "new"
    made = ctl.json("init", folder, "--domain", "Example.org", "--hostname", "mx.example.org")
    assert made["hostname"] == "mx.example.org" and made["domain"] == "example.org"
    assert [user["user"] for user in made["users"]] == ["admin@example.org"]
    assert len(made["next"]) == 4 and made["next"][0] == f"twistd -n mail --config {folder / 'mail.toml'}"
    ctl.config = folder / "mail.toml"
    configuration = load(ctl.config, {})
    assert configuration.hostname == "mx.example.org" and configuration.data == folder / "mail-data"
    assert configuration.listen.smtp == ("tcp:25",) and configuration.listen.lmtp == ()
    assert [row["alias"] for row in ctl.json("alias", "list")] == ["abuse@example.org", "postmaster@example.org"]
    (user,) = ctl.json("user", "list")
    assert user["user"] == "admin@example.org"

    async def stored(store: object) -> tuple[str, ...]:
        return (await store.user("admin@example.org")).credentials  # type: ignore[attr-defined, no-any-return]  # a Store

    assert matches(made["users"][0]["generated_password"], ctl.inside(stored))
    again = ctl.run("init", folder, "--domain", "example.org", "--json")
    assert (again.status, again.error()["code"]) == (4, "exists")
    assert len(ctl.json("user", "list")) == 1


def test_init_for_trying_it_has_mail_and_stays_on_loopback(tmp_path: Path) -> None:
    ctl = Mailctl(tmp_path)
    plain = ctl.good("init", tmp_path / "dev", "--domain", "dev.example", "--dev").out
    assert plain.count("password: ") == 3 and "user ann@dev.example password: " in plain
    ctl.config = tmp_path / "dev" / "mail.toml"
    listen = load(ctl.config, {}).listen
    assert listen.imap == ("tcp:8143:interface=127.0.0.1",)
    assert all("interface=127.0.0.1" in each for name in ("smtp", "lmtp", "pop3s") for each in getattr(listen, name))
    assert ctl.json("user", "show", "bob@dev.example")["messages"] == 60


def test_init_with_wrong_words_makes_nothing(tmp_path: Path) -> None:
    ctl = Mailctl(tmp_path)
    for words in (("--domain", "a b"), ("--domain", "a.example", "--admin", "x y"), ()):
        assert ctl.run("init", tmp_path / "x", *words).status == 2
    assert not (tmp_path / "x" / "mail.toml").exists() and not (tmp_path / "x" / "mail-data").exists()


# --- config


def test_config_is_shown_whole_and_in_part(ctl: Mailctl) -> None:
    ctl.config.write_text(ctl.config.read_text() + '[storage]\nmessaging = "memory://me:secret@host"\n')
    every = ctl.json("config", "show")
    assert every["hostname"] == "mail.example.org" and every["listen.imap"] == ["tcp:0:interface=127.0.0.1"]
    assert every["data"] == str(ctl.folder / "data") and every["account.mailboxes"]["Sent"] == "sent"
    assert "secret" not in str(every)
    lines = ctl.good("config", "show", "imap").out.splitlines()
    assert 'imap.separator = "/"' in lines and all(line.startswith("imap.") for line in lines)
    assert ctl.run("config", "show", "nothing").status == 3


def test_a_wrong_configuration_is_named_by_key_and_line(ctl: Mailctl) -> None:
    assert ctl.json("config", "validate")["good"] is True
    ctl.config.write_text('hostname = "x.example"\n[imap]\nseparator = "#"\n[listen]\nimap = ["nonsense"]\n')
    result = ctl.run("config", "validate")
    assert result.status == 1
    assert f"{ctl.config}:3: imap.separator:" in result.err and f"{ctl.config}:5: listen.imap" in result.err
    problems = ctl.run("user", "list", "--json").error()["problems"]
    assert [(each["key"], each["line"]) for each in problems] == [("imap.separator", 3), ("listen.imap[1]", 5)]
    assert ctl.run("doctor", "--json").json()["findings"][0]["code"] == "config.invalid"


# --- doctor


def codes(ctl: Mailctl, *sections: str) -> dict[str, str]:
    result = ctl.run("doctor", *sections, "--json")
    report = result.json()
    assert set(report) == {"result", "findings"}
    assert all(set(each) == {"code", "severity", "text", "remedy"} for each in report["findings"])
    assert all(each["remedy"] for each in report["findings"] if each["severity"] != "ok")
    assert (result.status == 1) == (report["result"] == "error")
    return {each["code"]: each["severity"] for each in report["findings"]}


def test_the_doctor_on_a_healthy_store(ann: Mailctl) -> None:
    found = codes(ann)
    assert set(found.values()) <= {"ok", "warning"}
    assert {"config.valid", "tls.self-signed", "storage.writable", "storage.disk", "storage.schema", "storage.clock",
            "storage.open", "ports.free"} <= set(found)  # fmt: skip
    assert all(code.startswith("tls.") for code in codes(ann, "tls"))
    plain = ann.good("doctor", "storage").out
    assert plain.startswith("ok      storage.writable") and "1 domains, 1 users" in plain
    assert ann.run("doctor", "everything").status == 2


def test_the_doctor_finds_a_sick_store(ctl: Mailctl) -> None:
    assert codes(ctl, "storage") == {"storage.missing": "error", "storage.clock": "ok"}
    ctl.with_user()
    ctl.good("alias", "add", "info@example.org", "nobody@example.org")
    assert codes(ctl, "storage")["storage.alias"] == "warning"
    (ctl.folder / "data").chmod(0o755)
    assert codes(ctl, "storage")["storage.mode"] == "warning"
    future = (ctl.folder / "data" / "mail.sqlite").stat().st_mtime + 5000
    (ctl.folder / "data" / "odd").touch()
    os.utime(ctl.folder / "data" / "odd", (future, future))
    assert codes(ctl, "storage")["storage.clock"] == "error"
    (ctl.folder / "data" / "odd").unlink()
    with patch.object(doctor_storage, "VERSION", 0):
        assert codes(ctl, "storage")["storage.schema"] == "error"
    usage = type("Usage", (), {"free": 10 << 20})
    with patch("shutil.disk_usage", lambda path: usage):
        assert codes(ctl, "storage")["storage.disk"] == "error"
    (ctl.folder / "data" / "mail.sqlite").write_bytes(b"not a database, for sure" * 100)
    for extra in ("mail.sqlite-wal", "mail.sqlite-shm"):
        (ctl.folder / "data" / extra).unlink(missing_ok=True)
    assert codes(ctl, "storage")["storage.schema"] == "error"


def test_the_doctor_asks_who_is_at_a_port(ann: Mailctl) -> None:
    with socket.socket() as mute, socket.socket() as speaking:
        for each in (mute, speaking):
            each.bind(("127.0.0.1", 0))
            each.listen()

        def greet() -> None:
            end, _ = speaking.accept()
            end.sendall(b"* OK here\r\n")
            end.close()

        thread = threading.Thread(target=greet)
        thread.start()
        ann.config.write_text(
            f'data = "data"\n[listen]\nimap = ["tcp:{speaking.getsockname()[1]}:interface=127.0.0.1"]\n'
            f'pop3 = ["tcp:{mute.getsockname()[1]}:interface=127.0.0.1"]\nlmtp = ["unix:{ann.folder}/none/lmtp"]\n'
        )
        with patch("twisted_mail.admin.doctor_ports.SECONDS", 0.2), patch(
            "twisted_mail.admin.doctor_ports.greeting.__defaults__", (0.2,)
        ):
            found = codes(ann, "ports")
        thread.join()
    assert found == {"ports.answers": "ok", "ports.taken": "error", "ports.folder": "error"}


def test_endpoints_are_read_as_twisted_reads_them() -> None:
    assert endpoint_parts(r"tcp6:143:interface=\:\:1") == ("tcp6", ["143"], {"interface": "::1"})
    assert endpoint_parts("unix:/run/lmtp:mode=660") == ("unix", ["/run/lmtp"], {"mode": "660"})


NOW = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)


def a_pair(folder: Path, days: int, host: str = "mail.example.org", name: str = "a") -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - datetime.timedelta(days=100))
        .not_valid_after(NOW + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    paths[1].chmod(0o600)
    return paths


@pytest.mark.parametrize(
    ("days", "host", "wanted"),
    [
        (60, "mail.example.org", {"tls.valid": "ok"}),
        (60, "*.example.org", {"tls.valid": "ok"}),
        (60, "other.example", {"tls.valid": "ok", "tls.name": "warning"}),
        (10, "mail.example.org", {"tls.expires": "warning"}),
        (-1, "mail.example.org", {"tls.expired": "error"}),
    ],
)
def test_the_doctor_reads_certificates(ctl: Mailctl, days: int, host: str, wanted: dict[str, str]) -> None:
    certificate, key = a_pair(ctl.folder, days, host)
    ctl.config.write_text(f'hostname = "mail.example.org"\n[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
    found = doctor_tls.look(load(ctl.config, {}), NOW)
    assert {each.code: each.severity for each in found} == wanted


def test_the_doctor_matches_keys_with_certificates(ctl: Mailctl) -> None:
    certificate, _ = a_pair(ctl.folder, 60)
    _, key = a_pair(ctl.folder, 60, name="b")
    key.chmod(0o644)
    ctl.config.write_text(f'hostname = "mail.example.org"\n[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
    assert {"tls.mismatch", "tls.key-mode"} <= {each.code for each in doctor_tls.look(load(ctl.config, {}), NOW)}
    key.write_text("nonsense")
    assert "tls.key" in {each.code for each in doctor_tls.look(load(ctl.config, {}), NOW)}
    certificate.unlink()
    assert "tls.certificate" in {each.code for each in doctor_tls.look(load(ctl.config, {}), NOW)}


# --- the rest


def test_version_and_completion(ctl: Mailctl) -> None:
    assert set(ctl.json("version")) == {"twisted-mail-suite", "twisted", "python"}
    for shell in ("bash", "zsh", "fish"):
        assert "_MAILCTL_COMPLETE" in ctl.good("completion", shell).out
    assert ctl.run("completion", "cmd").status == 2


def test_help_names_every_noun_and_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {noun} " in text for noun in NOUNS)
    assert call(["user", "add", "--help"]) == 0
    assert "--password-stdin" in capsys.readouterr().out


def test_the_reference_is_what_the_commands_say(tmp_path: Path) -> None:
    path = ROOT / "docs" / "reference" / "mailctl.md"
    assert reference.main(["--check", str(path)]) == 0, "run python -m twisted_mail.admin.reference docs/reference/mailctl.md"
    (tmp_path / "old.md").write_text("old")
    assert reference.main(["--check", str(tmp_path / "old.md")]) == 1
    assert reference.main([]) == 2
    text = path.read_text("utf-8")
    assert all(f"\n## {noun}\n" in text or f"`mailctl {noun}" in text for noun in NOUNS)
