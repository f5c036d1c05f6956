"""Which servers are asked, and what may be asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from twisted_mail.dns.names import BadName, a_labels, is_host_name, query_name
from twisted_mail.dns.servers import NameServer, of_system, parse_resolv_conf, parse_server


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", NameServer("192.0.2.1")),
        (" 192.0.2.1:5353", NameServer("192.0.2.1", 5353)),
        ("2001:db8::1", NameServer("2001:db8::1")),
        ("[2001:db8::1]:5353", NameServer("2001:db8::1", 5353)),
        ("[2001:db8::1]", NameServer("2001:db8::1")),
    ],
)
def test_a_server_is_an_address_and_perhaps_a_port(text: str, server: NameServer) -> None:
    assert parse_server(text) == server
    assert parse_server(str(server)) == server


@pytest.mark.parametrize("text", ["", "dns.example", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:x", "[::1]x"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_server(text)


def test_the_systems_servers(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    assert of_system(file) == (NameServer("127.0.0.1"),)
    file.write_text("# none\nsearch example.org\noptions edns0\n")
    assert of_system(file) == (NameServer("127.0.0.1"),)
    file.write_text("nameserver 192.0.2.1\nnameserver nonsense\nnameserver\t::1 # ours\nnameserver 192.0.2.1\n")
    assert of_system(file) == (NameServer("192.0.2.1"), NameServer("::1"))
    assert len(parse_resolv_conf("".join(f"nameserver 192.0.2.{n}\n" for n in range(100)))) == 8


def test_names_become_a_labels() -> None:
    assert a_labels("Example.ORG.") == "example.org"
    assert a_labels("bücher.example") == "xn--bcher-kva.example"
    assert a_labels("faß.example") == "xn--fa-hia.example"
    assert a_labels("_25._tcp.MX.example.org") == "_25._tcp.mx.example.org"
    for wrong in ("", ".", "a..b", ".a", "-a.org", "a\0.org", "x" * 64, "a b", "☃☃☃" * 30 + ".org", "\ud800.org"):
        with pytest.raises(BadName):
            a_labels(wrong)


def test_senders_addresses_may_be_part_of_a_name_that_is_asked_for() -> None:
    assert query_name("User+Tag=x.example.org.") == "user+tag=x.example.org"
    assert query_name("bücher.example") == "xn--bcher-kva.example"
    for wrong in ("", "a..b", "a b.org", "a\\b.org", 'a"b.org', "[192.0.2.1]", "x" * 64 + "+.org", "ü+.org", "+." * 130):
        with pytest.raises(BadName):
            query_name(wrong)


def test_a_host_has_no_underscore_and_is_no_number() -> None:
    assert is_host_name("mx1.example.org")
    for wrong in ("", "192.0.2.1", "_mx.example.org", "mx_1.example.org", "a\\032b.org", "*.example.org", "mx."):
        assert not is_host_name(wrong), wrong
