"""TLS: which certificate, which versions, reading them again; with real handshakes in memory."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory

from twisted_mail.auth.tls import CertificateError, KeyPair, TLSContexts, self_signed
from twisted_mail.tls_info import channel_bindings, describe, end_point

NOW = datetime.datetime.now(datetime.UTC)


def make_pair(folder: Path, name: str, *dns: str, key: Any = None, days: int = 30, common: str = "x") -> KeyPair:
    """A self-signed pair with the SANs *dns*; key: any private key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(100))
        .not_valid_after(NOW + datetime.timedelta(days))
    )
    if dns:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in dns]), False)
    certificate = builder.sign(key, hashes.SHA256())
    pair = KeyPair(folder / f"{name}.crt", folder / f"{name}.key")
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return pair


def der(pair: KeyPair) -> bytes:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).public_bytes(serialization.Encoding.DER)


class Handshake:
    """OpenSSL's own client against a connection of the contexts."""

    def __init__(self, contexts: TLSContexts, name: str | None = None, **limits: int) -> None:
        self.server = contexts.serverConnectionForTLS(None)
        self.server.set_accept_state()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        if "most" in limits:
            context.set_max_proto_version(limits["most"])
        self.client = SSL.Connection(context, None)
        if name is not None:
            self.client.set_tlsext_host_name(name.encode())
        self.client.set_connect_state()
        for _ in range(10):
            for one, other in ((self.client, self.server), (self.server, self.client)):
                try:
                    one.do_handshake()
                except SSL.WantReadError:
                    pass
                try:
                    other.bio_write(one.bio_read(65536))
                except SSL.WantReadError:
                    pass

    def certificate(self) -> bytes:
        certificate = self.client.get_peer_certificate()
        assert certificate is not None
        return certificate.to_cryptography().public_bytes(serialization.Encoding.DER)


@pytest.fixture
def pairs(tmp_path: Path) -> list[KeyPair]:
    return [
        make_pair(tmp_path, "first", "mail.example.org"),
        make_pair(tmp_path, "second", "mail.example.com", "*.example.net"),
        make_pair(tmp_path, "third", common="old.example"),
    ]


@pytest.mark.parametrize(
    ("asked", "which"),
    [
        (None, 0),
        ("mail.example.org", 0),
        ("unknown.example", 0),
        ("mail.example.com", 1),
        ("MAIL.Example.COM", 1),
        ("any.example.net", 1),
        ("two.levels.example.net", 0),
        ("example.net", 0),
        ("old.example", 2),
    ],
)
def test_the_client_gets_the_certificate_of_the_name_it_asks_for(
    pairs: list[KeyPair], asked: str | None, which: int
) -> None:
    handshake = Handshake(TLSContexts(pairs), asked)
    assert handshake.certificate() == der(pairs[which])
    # and both ends bind to the same channel
    bindings = channel_bindings(handshake.server)
    assert bindings["tls-server-end-point"] == hashlib.sha256(der(pairs[which])).digest()
    exported = handshake.client.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    assert bindings["tls-exporter"] == exported
    assert describe(handshake.server).startswith("TLS1.3 with cipher TLS_")


def test_names_that_are_given_stand_for_those_of_the_certificate(pairs: list[KeyPair]) -> None:
    given = KeyPair(pairs[1].certificate, pairs[1].key, ("Imap.example.edu", "*.example.gov"))
    contexts = TLSContexts([pairs[0], given])
    assert Handshake(contexts, "imap.example.edu").certificate() == der(given)
    assert Handshake(contexts, "mx.example.gov").certificate() == der(given)
    assert Handshake(contexts, "mail.example.com").certificate() == der(pairs[0])


def test_tls_1_2_is_spoken_with_forward_secrecy_and_binds_by_the_certificate_only(pairs: list[KeyPair]) -> None:
    handshake = Handshake(TLSContexts(pairs), most=SSL.TLS1_2_VERSION)
    assert describe(handshake.server).startswith("TLS1.2 with cipher ECDHE-")
    assert list(channel_bindings(handshake.server)) == ["tls-server-end-point"]


def test_older_versions_are_not_spoken(pairs: list[KeyPair]) -> None:
    with pytest.raises(SSL.Error):
        Handshake(TLSContexts(pairs), most=SSL.TLS1_1_VERSION)
    with pytest.raises(SSL.Error):
        Handshake(TLSContexts(pairs, minimum="1.3"), most=SSL.TLS1_2_VERSION)
    Handshake(TLSContexts(pairs, minimum="1.3"))


def test_rsa_keys_and_chains(tmp_path: Path, pairs: list[KeyPair]) -> None:
    pair = make_pair(tmp_path, "rsa", "r.example", key=rsa.generate_private_key(65537, 2048))
    pair.certificate.write_bytes(pair.certificate.read_bytes() + pairs[0].certificate.read_bytes())
    handshake = Handshake(TLSContexts([pair]))
    chain = handshake.client.get_peer_cert_chain()
    assert chain is not None and len(chain) == 2


def test_key_and_certificate_may_be_one_file(tmp_path: Path, pairs: list[KeyPair]) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(pairs[0].key.read_bytes() + pairs[0].certificate.read_bytes())
    assert Handshake(TLSContexts([KeyPair(both, both)])).certificate() == der(pairs[0])


# --- reload


def test_a_reload_is_seen_by_new_connections(tmp_path: Path, pairs: list[KeyPair]) -> None:
    contexts = TLSContexts(pairs)
    before = Handshake(contexts, "mail.example.com")
    old = der(pairs[1])
    make_pair(tmp_path, "second", "mail.example.com", "new.example")
    assert Handshake(contexts, "mail.example.com").certificate() == old
    assert contexts.reload()
    assert Handshake(contexts, "mail.example.com").certificate() == der(pairs[1]) != old
    assert Handshake(contexts, "new.example").certificate() == der(pairs[1])
    assert Handshake(contexts, "any.example.net").certificate() == der(pairs[0])
    before.server.send(b"still there")
    before.client.bio_write(before.server.bio_read(65536))
    assert before.client.recv(100) == b"still there"


def test_a_reload_of_something_broken_changes_nothing(pairs: list[KeyPair]) -> None:
    contexts = TLSContexts(pairs)
    old = der(pairs[0])
    make_pair(pairs[0].certificate.parent, "first", "mail.example.org")
    pairs[1].key.write_bytes(b"broken")
    assert not contexts.reload()
    assert Handshake(contexts).certificate() == old


# --- errors


def broken(pairs: list[KeyPair], case: str) -> tuple[KeyPair, Path]:
    """A pair that cannot be used, and the file that is to blame."""
    pair = pairs[0]
    if case == "missing":
        pair.certificate.unlink()
        return pair, pair.certificate
    if case == "no key file":
        pair.key.unlink()
        return pair, pair.key
    if case == "a folder":
        return KeyPair(pair.certificate.parent, pair.key), pair.certificate.parent
    if case == "no certificate":
        pair.certificate.write_bytes(pair.key.read_bytes())
        return pair, pair.certificate
    if case == "garbage":
        pair.certificate.write_bytes(b"\0\xff-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
        return pair, pair.certificate
    if case == "no key":
        pair.key.write_bytes(pair.certificate.read_bytes())
        return pair, pair.key
    if case == "another key":
        return KeyPair(pair.certificate, pairs[1].key), pairs[1].key
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    return pair, pair.key


@pytest.mark.parametrize(
    "case",
    ["missing", "no key file", "a folder", "no certificate", "garbage", "no key", "another key", "encrypted"],
)
def test_what_cannot_be_used_is_named_in_one_line(pairs: list[KeyPair], case: str) -> None:
    pair, blamed = broken(pairs, case)
    with pytest.raises(CertificateError) as caught:
        TLSContexts([pair])
    assert str(blamed) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_end_points_hash_as_rfc_5929_says(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + datetime.timedelta(1))
    )
    certificate = builder.sign(key, hashes.SHA384())
    assert end_point(certificate) == hashlib.sha384(certificate.public_bytes(serialization.Encoding.DER)).digest()


# --- self-signed


def test_the_self_signed_pair_is_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    pair = self_signed(folder, "Mail.example.org")
    assert pair.key.stat().st_mode & 0o777 == 0o600
    content = pair.key.read_bytes()
    assert self_signed(folder, "mail.example.org") == pair
    assert pair.key.read_bytes() == content
    assert sorted(each.name for each in folder.iterdir()) == ["certificate.pem", "self-signed.pem"]
    public = (folder / "certificate.pem").read_bytes()
    assert b"PRIVATE" not in public and public in content
    certificate = x509.load_pem_x509_certificate(public)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mail.example.org", "localhost"]
    addresses = names.get_values_for_type(x509.IPAddress)
    assert addresses == [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc < datetime.timedelta(825)


def test_a_client_that_is_given_the_certificate_trusts_it(tmp_path: Path) -> None:
    contexts = TLSContexts([self_signed(tmp_path, "mail.example.org")])
    for name in ("mail.example.org", "localhost", "127.0.0.1"):
        context = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname=name)
        server = contexts.serverConnectionForTLS(None)
        server.set_accept_state()
        for _ in range(5):
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                pass
            if outgoing.pending:
                server.bio_write(outgoing.read())
            try:
                server.do_handshake()
            except SSL.WantReadError:
                pass
            try:
                incoming.write(server.bio_read(65536))
            except SSL.WantReadError:
                pass
        assert client.version() == "TLSv1.3"


def key_of(pair: KeyPair) -> bytes:
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(("hostname", "days"), [("mail.example.org", 800), ("other.example.org", 0)])
def test_it_is_renewed_with_the_same_key(tmp_path: Path, hostname: str, days: int) -> None:
    pair = self_signed(tmp_path, "mail.example.org")
    old, key = pair.certificate.read_bytes(), key_of(pair)
    self_signed(tmp_path, "mail.example.org", now=NOW + datetime.timedelta(700))
    assert pair.certificate.read_bytes() == old
    self_signed(tmp_path, hostname, now=NOW + datetime.timedelta(days))
    assert pair.certificate.read_bytes() != old
    assert key_of(pair) == key
    assert (tmp_path / "certificate.pem").read_bytes() in pair.certificate.read_bytes()
    TLSContexts([pair])


def test_a_host_name_may_be_an_address(tmp_path: Path) -> None:
    pair = self_signed(tmp_path, "192.0.2.1")
    content = pair.certificate.read_bytes()
    self_signed(tmp_path, "192.0.2.1")
    assert pair.certificate.read_bytes() == content


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CertificateError, match="file"):
        self_signed(tmp_path / "file" / "tls", "mail.example.org")


# --- for Twisted


def test_twisted_takes_the_contexts_as_they_are(pairs: list[KeyPair]) -> None:
    contexts = TLSContexts(pairs)
    assert IOpenSSLServerConnectionCreator.providedBy(contexts)
    factory = TLSMemoryBIOFactory(contexts, False, Factory.forProtocol(Protocol))
    server = factory.buildProtocol(None)
    transport = StringTransport()
    server.makeConnection(transport)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="mail.example.com")
    for _ in range(3):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            pass
        if outgoing.pending:
            server.dataReceived(outgoing.read())
        incoming.write(transport.value())
        transport.clear()
    assert client.getpeercert(True) == der(pairs[1])
