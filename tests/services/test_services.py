"""The servers come up, can be killed and brought back, and leave nothing behind."""

from __future__ import annotations

import os
import socket
import urllib.request

import pytest

from tests.services import fetch, running
from tests.services.nats import Nats
from tests.services.processes import NotReady, Process
from tests.services.versity import VersityGateway


def _there() -> None:
    why = fetch.missing()
    if why is not None:
        running.unavailable(why)


def test_a_killed_server_comes_back_with_its_data_and_a_stopped_one_is_gone() -> None:
    _there()
    nats = Nats(running.new_folder("nats"))
    try:
        nats.start()
        node = nats.nodes[0]
        pid = node.process.pid
        node.kill()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", node.port), 1).close()
        node.start()
        assert node.process.pid != pid
        node.pause()
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(f"http://127.0.0.1:{node.monitor}/healthz", timeout=0.3)
        node.resume()
        node.ready()
        last = node.process.pid
    finally:
        nats.stop()
    assert not nats.folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


def test_a_server_that_ends_at_once_says_why() -> None:
    folder = running.new_folder("broken")
    process = Process("broken", ["/bin/sh", "-c", "echo no such option; exit 3"], folder)
    try:
        process.start()
        with pytest.raises(NotReady, match="no such option"):
            process.wait("127.0.0.1", 1, 5)
    finally:
        running.remove(folder)


def test_an_operators_server_takes_the_place_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CQL", "cql://u:p@10.0.0.1,10.0.0.2:9042/ignored?datacenter=dc1")
    monkeypatch.setenv("NATS", "nats://10.0.0.1:4222")
    monkeypatch.setenv("S3", "s3://k:s@10.0.0.9:7070/ignored?tls=true")
    assert running.cassandra().url("mine") == "cql://u:p@10.0.0.1,10.0.0.2:9042/mine?datacenter=dc1"
    assert running.nats().url("mine") == "nats://10.0.0.1:4222?prefix=mine"
    assert running.versity().url("mine") == "s3://k:s@10.0.0.9:7070/mine?tls=true"
    with pytest.raises(pytest.skip.Exception, match="not ours to kill"):
        try:
            running.nats_cluster(3)
        except Exception as error:
            pytest.skip(str(error))


def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("TWISTED_MAIL_SERVICES", str(tmp_path))
    why = fetch.missing()
    assert why is not None and "make services" in why and "\n" not in why
    monkeypatch.setenv("CI", "true")
    with pytest.raises(AssertionError, match="make services"):
        running.unavailable(why)


def test_an_object_server_listens_on_loopback_only() -> None:
    _there()
    versity = VersityGateway(running.new_folder("s3"))
    try:
        versity.start()
        with pytest.raises(OSError):
            socket.create_connection((socket.gethostbyname(socket.gethostname()), versity.port), 0.5).close()
            if socket.gethostbyname(socket.gethostname()).startswith("127."):
                raise OSError("the machine's own name is a loopback address here")
    finally:
        versity.stop()
