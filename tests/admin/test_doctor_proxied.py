"""The doctor at a listener behind a proxy: it asks as a proxy does that speaks for itself."""

from __future__ import annotations

import socket
import threading

import pytest

from twisted_mail.admin.doctor_ports import look
from twisted_mail.proxy_protocol import Origin, ProxyHeader
from twisted_mail.tap.configuration import load


@pytest.mark.parametrize(("trusting", "found"), [(True, "ports.answers"), (False, "ports.proxied")])
def test_a_listener_behind_a_proxy_is_asked_with_a_header(trusting: bool, found: str) -> None:
    origins: list[Origin | None] = []

    def serve() -> None:
        end, _ = listening.accept()
        with end:
            if trusting:
                origins.append(ProxyHeader().feed(end.recv(100)))
                end.sendall(b"220 mx.example.org ESMTP\r\n")

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        environment = {f"TWISTED_MAIL__LISTEN__{name}": "" for name in ("SUBMISSION", "IMAP", "POP3")}
        environment["TWISTED_MAIL__LISTEN__SMTP"] = f"haproxy:tcp:{listening.getsockname()[1]}:interface=127.0.0.1"
        environment["TWISTED_MAIL__SMTP__TRUSTED"] = "10.0.0.0/8"
        findings = [each for each in look(load(None, environment)) if each.text.startswith("smtp:")]
        thread.join()
    assert [(each.code, each.severity) for each in findings] == [(found, "ok")]
    assert origins == ([Origin()] if trusting else [])
