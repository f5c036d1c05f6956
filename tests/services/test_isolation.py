"""A network of one's own can be cut without anybody being told, and leaves nothing behind; a small disk can be filled."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import isolation, running, small_disk
from tests.services.isolation import Isolation
from tests.services.processes import loopback_address
from tests.services.small_disk import SmallDisk

CALL = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 30)
for line in sys.stdin:
    connection.sendall(line.encode())
"""


@pytest.fixture
def two_ways() -> Iterator[tuple[Isolation, str]]:
    if why := isolation.why_not():  # a permission of the kernel's, which no package brings
        pytest.skip(why)
    far = loopback_address()
    found = Isolation({"far": (f"{far}/32",), "near": ("127.0.0.1/32",)})
    try:
        found.open()
        yield found, far
    finally:
        found.close()


def _links() -> str:
    return subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout


def test_a_way_that_is_cut_is_silent_and_goes_on_where_it_was(two_ways: tuple[Isolation, str]) -> None:
    inside, far = two_ways
    calls = []
    for address in (far, "127.0.0.1"):
        listener = socket.create_server((address, 0))
        listener.settimeout(30)
        words = [*inside.around, sys.executable, "-c", CALL, address, str(listener.getsockname()[1])]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, text=True, bufsize=1)
        connection, _ = listener.accept()
        calls.append((process, connection, listener))
    try:
        (cut, heard, _), (whole, others, _) = calls
        assert cut.stdin is not None and whole.stdin is not None
        inside.ways["far"].cut()
        cut.stdin.write("a\n")
        whole.stdin.write("b\n")
        others.settimeout(30)
        assert others.recv(10) == b"b\n"
        heard.settimeout(0.5)
        with pytest.raises(TimeoutError):
            heard.recv(10)
        assert cut.poll() is None
        inside.ways["far"].mend()
        heard.settimeout(60)
        assert heard.recv(10) == b"a\n"
    finally:
        for process, connection, listener in calls:
            process.kill()
            process.communicate()
            connection.close()
            listener.close()


def test_what_listens_inside_is_reached_at_its_address_and_all_else_is_not_reached_from_there(
    two_ways: tuple[Isolation, str],
) -> None:
    inside, _ = two_ways
    serve = f"import socket; s = socket.create_server(({inside.address!r}, 7777)); print(flush=True); s.accept()[0].sendall(b'hello')"
    with subprocess.Popen([*inside.around, sys.executable, "-c", serve], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with socket.create_connection((inside.address, 7777), 30) as connection:
            assert connection.recv(10) == b"hello"
    outward = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    done = subprocess.run([*inside.around, sys.executable, "-c", outward], capture_output=True, text=True, check=False)
    assert "unreachable" in done.stderr


def test_nothing_stays_of_a_network(two_ways: tuple[Isolation, str]) -> None:
    inside, _ = two_ways
    devices = [way.device for way in inside.ways.values()]
    assert all(device in _links() for device in devices)
    inside.ways["far"].cut()
    inside.close()
    assert not any(device in _links() for device in devices)
    assert inside.name not in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


def test_where_there_are_no_namespaces_that_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    why = isolation.why_not()
    assert why is not None and "iproute2" in why and "\n" not in why
    monkeypatch.setenv("CI", "true")
    with pytest.raises(AssertionError, match="iproute2"):
        running.unavailable(why)


def test_a_small_disk_is_full_when_it_was_filled_and_keeps_what_lay_there(tmp_path: Path) -> None:
    if why := small_disk.why_not(tmp_path):
        pytest.skip(why)
    folder = tmp_path / "data"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "before").write_bytes(b"b" * 100_000)
    disk = SmallDisk(folder, 2 * small_disk.MIB)
    disk.put_in()
    try:
        (folder / "meanwhile").write_text("m")
        disk.fill()
        with pytest.raises(OSError) as raised, (folder / "more").open("wb", buffering=0) as file:
            file.write(b"0" * 100_000)
            file.write(b"0" * 100_000)
        assert raised.value.errno == errno.ENOSPC
        (folder / "more").unlink(missing_ok=True)
        disk.empty()
        assert disk.free > small_disk.MIB
    finally:
        disk.take_out()
    assert (folder / "in" / "before").read_bytes() == b"b" * 100_000
    assert sorted(path.name for path in folder.iterdir()) == ["in", "meanwhile"]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
