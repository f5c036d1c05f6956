"""Scripts as clients write them: everything that they put down compiles and does what its user meant."""

from __future__ import annotations

import pytest

from tests.sieve.scripts import files, run
from twisted_mail.sieve import compile_script
from twisted_mail.sieve.values import Discard, FileInto, Keep, Redirect, Vacation

RULES = """require ["fileinto","copy","imap4flags","vacation","date","relational","regex","body","envelope"];\r
# rule:[lists]\r
if anyof (header :contains "list-id" "users.example.org", address :is :all ["from","sender"] "list@example.org")\r
{\r
\tfileinto "Lists/users";\r
\taddflag "\\\\Seen";\r
\tstop;\r
}\r
# rule:[switched off]\r
if false # header :contains "subject" "invoice"\r
{\r
\tdiscard;\r
}\r
# rule:[everything to the office]\r
if true\r
{\r
\tredirect :copy "office@example.org";\r
}\r
# rule:[big ones]\r
if allof (size :over 5M, not header :regex "subject" "^(re|aw): ")\r
{\r
\tfileinto "Big";\r
}\r
# rule:[away]\r
if allof (currentdate :value "ge" "date" "2026-12-20", currentdate :value "le" "date" "2027-01-06")\r
{\r
\tvacation :days 7 :addresses ["me@example.org", "m.e@example.org"] :from "Me <me@example.org>" :subject "Away" text:\r
Hello,\r
\r
I am back on 7 January.\r
..\r
.\r
;\r
}\r
"""

QUOTED = """# Sieve filter
# written by a program

require [ "fileinto", "reject" ] ;

if header :comparator "i;ascii-casemap" :contains [ "Subject" , "X-Spam-Flag" ] [ "[SPAM]", "YES" ]  {
    fileinto "Junk" ;
    stop ;
} elsif allof ( true
,   address :all :contains "From" "bad@example.org"
,   not exists "X-Friend" ) {
    reject text:
I do not want this.
.
    ;
    stop;
}
keep;
"""


def test_rules_of_a_webmail() -> None:
    outcome = run(RULES, b"List-Id: <users.example.org>\n\n")
    assert outcome.actions == (FileInto("Lists/users"),)
    outcome = run(RULES, b"Subject: invoice\n\n", now=1_798_000_000.0)  # 2026-12-23
    assert outcome.error is None
    redirect, vacation, keep = outcome.actions
    assert redirect == Redirect("office@example.org")
    assert isinstance(vacation, Vacation) and keep == Keep()
    assert vacation.seconds == 7 * 86_400
    assert vacation.reason == "Hello,\r\n\r\nI am back on 7 January.\r\n.\r\n"
    assert run(RULES, b"Subject: x\n\n", now=1_700_000_000.0).actions == (Redirect("office@example.org"), Keep())


def test_rules_with_space_everywhere() -> None:
    assert files(run(QUOTED, b"X-Spam-Flag: yes\n\n")) == ["Junk"]
    (action,) = run(QUOTED, b"From: bad@example.org\n\n").actions
    assert getattr(action, "reason", "") == "I do not want this.\r\n"
    assert run(QUOTED, b"From: bad@example.org\nX-Friend: yes\n\n").actions == (Keep(),)


@pytest.mark.parametrize(
    "text", ["", "\r\n", "# nothing\r\n", "/* nothing */", "keep;", "stop;", 'require ["fileinto"];\n']
)
def test_scripts_that_say_nothing(text: str) -> None:
    assert run(text).actions == (Keep(),)


def test_a_rule_for_everything_that_is_no_rule() -> None:
    assert run("discard;").actions == (Discard(),)
    assert not compile_script(RULES.replace("body", "copy")).needs_body
