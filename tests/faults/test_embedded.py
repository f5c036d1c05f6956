"""The embedded server is killed and paused while clients work; what they were answered holds."""

from __future__ import annotations

from pathlib import Path

from tests.faults.house import ACCOUNTS, EXTRA, PASSWORD, judge, pictures, populate, run_in_loop, work_under
from tests.faults.load import Load
from tests.faults.plan import Fault, carry_out
from tests.faults.records import Recorder
from tests.services.mail import MailCluster, Storage


def test_what_clients_were_answered_holds_when_the_server_is_killed(tmp_path: Path) -> None:
    cluster = MailCluster(tmp_path, Storage(), {"one": ["smtp", "imap", "delivery"]}, extra=EXTRA)
    populate(cluster)
    cluster.start()
    try:
        nodes = list(cluster.nodes.values())
        victims = {"mail": nodes}
        recorder = Recorder(tmp_path / "records.jsonl")
        load = Load(recorder, nodes, nodes, ACCOUNTS, PASSWORD, seed=1, seconds=20, pause=0.02)
        faults = [Fault("mail", 0, action, 0.5) for action in ("kill", "pause", "kill")]
        run_in_loop(work_under(load, carry_out(iter(faults), victims, recorder, seconds=20, between=1.0)))
        judge(recorder, run_in_loop(pictures(recorder, nodes, ACCOUNTS, 20)), cluster)
        counts = recorder.counts()
        assert counts["arrived answered"] > 20 and counts["stored answered"] > 20 and counts["moved answered"] > 2, counts
        assert counts["shown"] > 20, counts
    finally:
        cluster.stop()
