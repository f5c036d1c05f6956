"""``mailctl sieve`` and ``mailctl test sieve``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.admin.calling import Mailctl

SORTING = 'require "fileinto";\nif header :contains "list-id" "dev" {\n  fileinto "Lists";\n}\n'


def script(folder: Path, text: str = SORTING, name: str = "sorting.sieve") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_scripts_go_in_come_out_are_activated_renamed_and_deleted(ann: Mailctl, tmp_path: Path) -> None:
    who = "ann@example.org"
    assert ann.json("sieve", "list", who) == []
    ann.good("sieve", "put", who, "sorting", script(tmp_path))
    assert ann.process("sieve", "put", who, "Grüße", "-", given="keep;\n").status == 0
    assert ann.json("sieve", "list", who) == [
        {"name": "Grüße", "active": False, "size": 7},
        {"name": "sorting", "active": False, "size": len(SORTING.replace("\n", "\r\n"))},
    ]
    assert ann.run("sieve", "show", who).status == 3
    assert ann.good("sieve", "show", who, "sorting").out == SORTING
    assert "takes effect within a minute" in ann.good("sieve", "activate", who, "sorting").out
    assert ann.good("sieve", "show", who).out == SORTING
    shown = ann.json("sieve", "show", who)
    assert shown == {"name": "sorting", "active": True, "script": SORTING.replace("\n", "\r\n")}
    assert ann.good("sieve", "rename", who, "sorting", "daily").out == f"sorting of {who} is daily now\n"
    assert [row["active"] for row in ann.json("sieve", "list", who)] == [False, True]
    refused = ann.run("sieve", "delete", who, "daily")
    assert (refused.status, refused.err) == (4, "mailctl: daily: the script is active: deactivate it first\n")
    ann.good("sieve", "deactivate", who)
    ann.good("sieve", "delete", who, "daily")
    assert [row["name"] for row in ann.json("sieve", "list", who)] == ["Grüße"]


def test_put_can_activate(ann: Mailctl, tmp_path: Path) -> None:
    stored = ann.json("sieve", "put", "ann@example.org", "sorting", script(tmp_path), "--activate")
    assert stored == {"name": "sorting", "active": True, "warnings": []}


def test_what_is_no_script_is_refused_with_its_place_and_nothing_is_stored(ann: Mailctl, tmp_path: Path) -> None:
    bad = script(tmp_path, "keep;\nfileinto 1;\n", "bad.sieve")
    refused = ann.run("sieve", "put", "ann@example.org", "sorting", bad)
    assert refused.status == 1 and refused.err.startswith(f"mailctl: {bad}: line 2, column 1: ")
    assert ann.json("sieve", "list", "ann@example.org") == []
    error = ann.run("sieve", "check", bad, "--json").error()
    assert (error["code"], error["line"], error["column"]) == ("invalid-script", 2, 1)
    assert ann.good("sieve", "check", script(tmp_path)).out.endswith("is a script\n")
    assert ann.process("sieve", "check", given="").err == "mailctl: <stdin>: the script is empty\n"
    latin = tmp_path / "latin"
    latin.write_bytes(b"# \xe4\nkeep;\n")
    assert ann.run("sieve", "check", latin).err == f"mailctl: {latin}: not UTF-8\n"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("list", "bob@example.org"), 3, "no user bob@example.org"),
        (("show", "ann@example.org", "none"), 3, "none: there is no such script"),
        (("activate", "ann@example.org", "none"), 3, "none: there is no such script"),
        (("delete", "ann@example.org", "none"), 3, "none: there is no such script"),
        (("rename", "ann@example.org", "none", "new"), 3, "none: there is no such script"),
        (("activate", "ann@example.org", ""), 2, ": a script needs a name"),
    ],
)
def test_what_is_not_there_is_said(ann: Mailctl, words: tuple[str, ...], status: int, said: str) -> None:
    result = ann.run("sieve", *words)
    assert (result.status, said in result.err) == (status, True), result


def test_the_limits_of_the_configuration_hold(ann: Mailctl, tmp_path: Path) -> None:
    ann.config.write_text(ann.config.read_text() + '[sieve]\nscripts = 1\nscript_bytes = "1KiB"\n')
    ann.good("sieve", "put", "ann@example.org", "one", script(tmp_path))
    assert "there are 1 scripts already" in ann.run("sieve", "put", "ann@example.org", "two", script(tmp_path)).err
    ann.good("sieve", "put", "ann@example.org", "one", script(tmp_path, "keep;"))
    long = script(tmp_path, "#" + "x" * 2000 + "\nkeep;\n")
    assert "a script has at most 1024 octets" in ann.run("sieve", "put", "ann@example.org", "one", long).err


# --- mailctl test sieve


MESSAGE = "From: Bo <bo@example.net>\nTo: ann@example.org\nSubject: hi\nList-Id: <dev.example.net>\n\nHello\n"


def message(folder: Path, text: str = MESSAGE) -> Path:
    path = folder / "message.eml"
    path.write_text(text)
    return path


def test_a_script_is_tried_on_a_message_and_explained(ctl: Mailctl, tmp_path: Path) -> None:
    said = ctl.good("test", "sieve", script(tmp_path), message(tmp_path)).out.splitlines()
    assert said[0] == "from <bo@example.net> to <ann@example.org>"
    assert any(line.startswith("  line 2: ") for line in said) and '  line 3: fileinto "Lists"' in said
    assert said[-2:] == ["It would:", '  put it into "Lists"']
    found = ctl.json("test", "sieve", script(tmp_path), message(tmp_path))
    assert [action["action"] for action in found["actions"]] == ["file-into"] and found["error"] is None


def test_tests_that_were_false_are_said_too(ctl: Mailctl, tmp_path: Path) -> None:
    plain = message(tmp_path, "From: Bo <bo@example.net>\nTo: ann@example.org\n\nHello\n")
    said = ctl.good("test", "sieve", script(tmp_path), plain).out.splitlines()
    assert any(line.startswith("  line 2: if header") and line.endswith(": false") for line in said), said
    assert said[-2:] == ["It would:", "  keep it in INBOX"]


def test_everything_that_a_script_asks_for_is_said(ctl: Mailctl, tmp_path: Path) -> None:
    text = """require ["vacation", "enotify", "editheader", "copy", "imap4flags", "envelope", "mailbox", "variables"];
addheader "X-Seen" "yes";
if envelope "from" "cy@example.net" { redirect :copy "dee@example.net"; }
if mailboxexists "There" { addflag "\\\\Seen"; }
vacation :days 3 "away";
notify "mailto:me@example.net";
keep;
"""
    found = ctl.good(
        "test", "sieve", script(tmp_path, text), message(tmp_path), "--from", "cy@example.net", "--mailbox", "There"
    ).out.splitlines()
    assert found[found.index("It would:") + 1 :] == [
        "  add the field X-Seen: yes",
        "  send it on to dee@example.net",
        '  answer its sender, once in 3 days: "away"',
        "  notify mailto:me@example.net",
        "  keep it in INBOX, with \\Seen",
    ]


def test_it_is_said_which_message_an_action_takes(ctl: Mailctl, tmp_path: Path) -> None:
    text = 'require ["replace", "fileinto"]; fileinto "a"; replace "x"; fileinto "b";'
    words = ("test", "sieve", script(tmp_path, text), message(tmp_path))
    assert ctl.good(*words).out.splitlines()[-2:] == ['  put it into "a", as it came', '  put it into "b"']
    assert [action["rewritten"] for action in ctl.json(*words)["actions"]] == [False, True]


def test_a_script_that_fails_keeps_the_message_and_says_where(ctl: Mailctl, tmp_path: Path) -> None:
    text = 'require "include";\ninclude "other";\ndiscard;\n'
    found = ctl.json("test", "sieve", script(tmp_path, text), message(tmp_path))
    assert [action["action"] for action in found["actions"]] == ["keep"] and found["error"]["line"] == 2
    script(tmp_path, "keep;", "other.sieve")
    found = ctl.json("test", "sieve", script(tmp_path, text), message(tmp_path))
    assert found["error"] is None


def test_what_is_no_script_or_no_message_is_refused(ctl: Mailctl, tmp_path: Path) -> None:
    result = ctl.run("test", "sieve", script(tmp_path, "nonsense"), message(tmp_path))
    assert result.status == 1 and "sorting.sieve: line 1, column 9: " in result.err
    result = ctl.run("test", "sieve", script(tmp_path), message(tmp_path, ""))
    assert (result.status, result.err) == (1, f"mailctl: {tmp_path / 'message.eml'} is empty\n")
