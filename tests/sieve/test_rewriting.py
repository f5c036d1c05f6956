"""replace and enclose (RFC 5703 sections 5 and 6): octet for octet."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mime.generate import PROPER, SHAPES, generate_shape
from tests.sieve.corpus import MESSAGES
from tests.sieve.scripts import environment, fails, files, run
from tests.sieve.test_versions import taken
from twisted_mail.mime import MessageParser
from twisted_mail.sieve import Message, Outcome, RunLimits, compile_script
from twisted_mail.sieve.values import Keep

NESTED = MESSAGES["nested"]
REQUIRE = """require ["mime", "foreverypart", "replace", "enclose", "fileinto", "variables", "extracttext", "editheader", "body",
"copy", "reject", "relational", "comparator-i;ascii-numeric"];\n"""
NAMED_PNG = 'header :mime :param "filename" :matches ["Content-Type", "Content-Disposition"] "*.png"'
TEXT = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"


def outcome_of(script: str, came: bytes = NESTED) -> Outcome:
    user = environment(user="ann@example.org", now=1_783_324_800.0, zone=120)
    return compile_script(REQUIRE + script).run(Message(came), user)


def kept(script: str, came: bytes = NESTED) -> bytes:
    """What INBOX gets."""
    [octets] = taken(outcome_of(script, came), came)["INBOX"]
    return octets


PNG = NESTED[NESTED.index(b"Content-Type: image/png") : NESTED.index(b"\r\n--outer\r\nContent-Type: message/rfc822")]
ALTERNATIVE = NESTED[NESTED.index(b"Content-Type: multipart/alternative") : NESTED.index(b"\r\n--outer\r\nContent-Type: image")]
HEADER, BODY = NESTED.split(b"\r\n\r\n", 1)


# --- replace


def test_attachments_are_replaced_and_nothing_else_is_touched() -> None:
    """Section 8.2's example, with other names."""
    script = f'foreverypart {{ if {NAMED_PNG} {{ replace "removed by user filter"; }} }}'
    assert kept(script) == NESTED.replace(PNG, TEXT + b"removed by user filter")


def test_a_multipart_is_replaced_with_all_that_it_holds_and_the_loop_goes_on_behind_it() -> None:
    script = """foreverypart {
        if header :mime :subtype "content-type" "alternative" { replace "x"; }
        if header :mime :matches :contenttype "content-type" "*" { set "n" "${n}${1} "; } }
        foreverypart { if header :mime :matches :contenttype "content-type" "*" { set "m" "${m}${1} "; } }
        fileinto "n ${n}"; fileinto "m ${m}"; keep;"""
    assert kept(script) == NESTED.replace(ALTERNATIVE, TEXT + b"x")
    assert files(outcome_of(script)) == [
        "n multipart/mixed text/plain image/png message/rfc822 text/plain text/plain ",
        "m multipart/mixed text/plain image/png message/rfc822 text/plain text/plain ",
    ]


def test_a_part_of_an_enclosed_message_is_replaced() -> None:
    script = 'foreverypart { if header :mime :param "charset" "content-type" "iso-8859-1" { replace "y"; } }'
    inner = NESTED[NESTED.index(b"Content-Type: text/plain; charset=iso") : NESTED.index(b"\r\n--outer\r\nContent-Type: text/plain")]
    # The inner message's own header is that of its only part, so all of it goes.
    whole = NESTED[NESTED.index(b"From: Inner Person") : NESTED.index(inner)] + inner
    assert kept(script) == NESTED.replace(whole, TEXT + b"y")


def test_inner_loops_replace_what_outer_loops_come_to_later() -> None:
    script = """foreverypart { if header :mime :subtype "content-type" "alternative" { foreverypart { replace "inner"; } }
        elsif header :mime :contenttype "content-type" "text/plain" { extracttext :first 7 "t"; set "n" "${n}[${t}]"; } }
        fileinto "${n}";"""
    assert files(outcome_of(script)) == ["[inner][inner][grüße][decoded]"]


def test_with_mime_the_text_is_an_entity_of_its_own() -> None:
    script = f"""foreverypart {{ if {NAMED_PNG} {{ replace :mime text:
Content-Type: text/html; charset=utf-8
X-Part: mine

<p>gone</p>
.
; }} }}"""
    entity = b"Content-Type: text/html; charset=utf-8\r\nX-Part: mine\r\n\r\n<p>gone</p>\r\n"
    assert kept(script) == NESTED.replace(PNG, entity)


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("just words", b"\r\njust words"),
        ("", b"\r\n"),
        ("X-A: b", b"X-A: b\r\n\r\n"),
        ("\n\nwords", b"\r\n\r\nwords"),
        ("Content-Type: text/plain\n\nGrüße", "Content-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße".encode()),
    ],
)
def test_an_entity_without_a_header_or_a_body_gets_what_it_lacks(text: str, entity: bytes) -> None:
    script = f'foreverypart {{ if {NAMED_PNG} {{ replace :mime "{text}"; }} }}'
    assert kept(script) == NESTED.replace(PNG, entity)


def test_text_that_is_not_plain_is_encoded() -> None:
    script = f'foreverypart {{ if {NAMED_PNG} {{ replace "Grüße\n{"x" * 1000}"; }} }}'
    octets = kept(script)
    assert max(map(len, octets.split(b"\r\n"))) < 100
    [part] = [each for each in email.message_from_bytes(octets).walk() if each["Content-Transfer-Encoding"] == "quoted-printable"][1:]
    assert part.get_payload(decode=True).decode() == "Grüße\r\n" + "x" * 1000  # type: ignore[union-attr]  # it is a leaf


def test_outside_of_loops_the_whole_message_is_replaced_under_its_header() -> None:
    octets = kept('replace :subject "Grüße" :from "Filter <filter@example.org>" "only this";')
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert [name.lower() for name in message.keys()] == [
        "subject", "from", "original-from", "to", "date", "original-subject", "message-id", "mime-version", "content-type",
        "content-transfer-encoding",
    ]  # fmt: skip
    assert message["subject"] == "Grüße" and message["original-subject"] == "whatever"
    assert (message["from"], message["original-from"]) == ("Filter <filter@example.org>", "Whomever <whoever@example.com>")
    assert octets.endswith(TEXT + b"only this\r\n")


def test_a_message_that_is_replaced_has_no_parts_of_the_old_one() -> None:
    script = 'foreverypart { replace "new"; set "n" "${n}."; if body :text :contains "HTML" { fileinto "bad"; } } fileinto "${n}"; '
    assert files(outcome_of(script)) == ["."]
    assert files(outcome_of('replace "new"; if body :raw :is "new\r\n" { fileinto "yes"; }')) == ["yes"]


def test_the_subject_counts_for_whole_messages_only() -> None:
    script = f'foreverypart {{ if {NAMED_PNG} {{ replace :subject "new" :from "a@b.example" "x"; }} }}'
    assert kept(script) == NESTED.replace(PNG, TEXT + b"x")


def test_a_sender_must_be_an_address() -> None:
    assert fails(REQUIRE + 'replace :from "no address" "x";').line == 3
    outcome = outcome_of('set "w" "no address"; replace :from "${w}" "x";')
    assert outcome.error is not None and outcome.actions == (Keep(),) and outcome.rewritten == {}


def test_the_name_of_a_sender_is_encoded_and_its_address_is_not() -> None:
    octets = kept('replace :from "\\"Jürgen, der\\" <j@example.org>" "x";')
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert message["from"].addresses[0].display_name == "Jürgen, der"
    assert message["from"].addresses[0].addr_spec == "j@example.org"


def test_actions_and_tests_take_the_message_as_it_is_then() -> None:
    script = f"""fileinto "before"; foreverypart {{ if {NAMED_PNG} {{ replace "x"; fileinto "between"; }} }}
        addheader "X-After" "1"; redirect "after@example.org"; if size :under {len(NESTED)} {{ fileinto "less"; }}"""
    found = taken(outcome_of(script), NESTED)
    changed = NESTED.replace(PNG, TEXT + b"x")
    assert found == {
        "before": [NESTED],
        "between": [changed],
        "after@example.org": [b"X-After: 1\r\n" + changed],
        **({"less": [b"X-After: 1\r\n" + changed]} if len(changed) + 12 < len(NESTED) else {}),
    }


def test_body_tests_see_what_was_put_in() -> None:
    script = f'foreverypart {{ if {NAMED_PNG} {{ replace "a needle"; }} }}'
    for kind in (":raw", ":text", ':content "text"'):
        assert files(outcome_of(script + f'if body {kind} :contains "needle" {{ fileinto "yes"; }}')) == ["yes"], kind
    assert files(outcome_of(script + 'if body :raw :contains "aGVsbG8gd29ybGQ=" { fileinto "still"; }')) == []


def test_a_refusal_beside_it_is_of_the_message_that_came() -> None:
    assert outcome_of('replace "x"; reject "no";').rewritten == {}


def test_what_was_replaced_may_be_replaced_again() -> None:
    script = f'foreverypart {{ if {NAMED_PNG} {{ replace "once"; replace "twice"; }} }}'
    assert kept(script) == NESTED.replace(PNG, TEXT + b"twice")


# --- enclose


def test_the_message_is_enclosed_under_a_new_header() -> None:
    """Section 8.3's example: a warning around what has dangerous attachments."""
    script = f"""foreverypart {{ if {NAMED_PNG} {{ enclose :subject "Warning" text:
WARNING! The enclosed message has attachments.
.
; break; }} }}"""
    octets = kept(script)
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert [(name.lower(), str(value)) for name, value in message.items()][:3] == [
        ("from", "ann@example.org"), ("date", "Mon, 06 Jul 2026 10:00:00 +0200"), ("subject", "Warning"),
    ]  # fmt: skip
    assert message.get_content_type() == "multipart/mixed"
    assert b"WARNING! The enclosed message has attachments.\r\n" in octets
    boundary = message.get_boundary()
    assert boundary is not None
    enclosed = octets.split(b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n")[1]
    assert enclosed == NESTED + b"\r\n--" + boundary.encode() + b"--\r\n"


def test_without_a_subject_it_has_that_of_the_message() -> None:
    message = email.message_from_bytes(kept('enclose :headers ["From", "x-none", "Subject", "Content-Type"] "look";'))
    assert message["subject"] is None or message["subject"] == "whatever"
    assert message["from"] == "Whomever <whoever@example.com>" and message.get_content_type() == "multipart/mixed"
    assert email.message_from_bytes(kept('enclose "look";'))["subject"] == "whatever"


def test_it_does_not_affect_what_is_redirected_and_what_follows_takes_the_new_message() -> None:
    script = """addheader "X-One" "1"; enclose "look"; addheader "X-Two" "2"; redirect "b@example.org"; fileinto "a";
        if header "x-two" "2" { if not exists "x-one" { fileinto "outer"; } }
        if header :mime :anychild "x-one" "1" { fileinto "inner"; }"""
    found = taken(outcome_of(script), NESTED)
    assert found["b@example.org"] == [b"X-One: 1\r\n" + NESTED]
    assert found["a"][0].startswith(b"X-Two: 2\r\nFrom: ann@example.org\r\n")
    assert b"\r\n\r\nX-One: 1\r\n" + NESTED in found["a"][0]
    assert found["outer"] == found["inner"] == found["a"]


def test_a_message_may_be_enclosed_more_than_once() -> None:
    octets = kept('enclose "inner"; enclose "outer";')
    kinds = [part.get_content_type() for part in email.message_from_bytes(octets).walk()]
    assert kinds[:6] == ["multipart/mixed", "text/plain", "message/rfc822", "multipart/mixed", "text/plain", "message/rfc822"]
    assert NESTED in octets and octets.index(b"outer") < octets.index(b"inner")
    assert outcome_of('enclose "x"; ' * 9).error is not None


def test_loops_that_go_on_replace_parts_of_the_enclosed_message() -> None:
    script = f'foreverypart {{ if {NAMED_PNG} {{ enclose "x"; }} if header :mime :type "content-type" "image" {{ replace "y"; }} }}'
    assert NESTED.replace(PNG, TEXT + b"y") in kept(script)
    script = 'foreverypart { if header :mime :type "content-type" "multipart" { enclose "x"; break; } }'
    assert NESTED in kept(script + f"foreverypart {{ if {NAMED_PNG} {{ stop; }} }}")


def test_what_delivery_has_put_in_front_of_it_stays_in_front() -> None:
    front = b"Return-Path: <eve@example.org>\r\n"
    for script in ('enclose "x";', 'replace "x";'):
        octets = kept(script, front + NESTED)
        assert octets.startswith(front) and octets.count(b"Return-Path") == 1, script


# --- bounds


def test_what_is_written_is_bounded() -> None:
    many = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 300
    script = REQUIRE + f'foreverypart {{ replace "{"x" * 2000}"; }}'
    assert run(script, b"Subject: x\n\n").error is None
    inside = REQUIRE + f'foreverypart {{ foreverypart {{ replace "{"x" * 2000}"; }} }}'
    assert run(inside, many).error is None
    outcome = run(inside, many, limits=RunLimits(rewritten_bytes=100_000))
    assert outcome.error is not None and outcome.actions == (Keep(),) and outcome.rewritten == {}


def test_a_header_of_which_not_all_is_known_is_not_rewritten() -> None:
    came = b"Subject: x\r\n" + b"X-Long: " + b"x" * (1 << 20) + b"\r\n\r\nbody\r\n"
    for script in ('replace "x";', 'enclose "x";'):
        outcome = outcome_of(script, came)
        assert outcome.error is not None and "too large" in outcome.error.text


def test_what_a_script_is_not_shown_of_a_large_message_is_there_in_what_is_stored() -> None:
    attachment = b"QUJD\r\n" * 10_000
    whole = NESTED.replace(b"aGVsbG8gd29ybGQ=\r\n", attachment)
    parser = MessageParser()
    parser.feed(whole)
    message = Message(whole[:2000], len(whole), parser.close().root)
    script = 'foreverypart { if header :mime :subtype "content-type" "alternative" { replace "x"; } } addheader "X-One" "1"; '
    outcome = compile_script(REQUIRE + script + 'fileinto "a"; enclose "look"; keep;').run(message, environment(user="a@b.example"))
    found = taken(outcome, whole)
    assert found["a"] == [b"X-One: 1\r\n" + whole.replace(ALTERNATIVE, TEXT + b"x")]
    assert b"\r\n\r\n" + found["a"][0] + b"\r\n--=_" in found["INBOX"][0]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.sampled_from(SHAPES), victim=st.integers(0, 12))
def test_of_any_message_only_the_part_that_is_replaced_changes(seed: int, shape: str, victim: int) -> None:
    came = generate_shape(shape, seed)
    message = Message(came)
    parts = list(message.entity.walk())
    place = parts[victim % len(parts)].part
    counted = "." * (victim % len(parts))
    script = f'foreverypart {{ if string "${{n}}" "{counted}" {{ replace "new"; }} set "n" "${{n}}."; }}'
    octets = kept(script, came)
    if place is message.entity.part:
        assert octets.endswith(TEXT + b"new\r\n")
    else:
        assert octets == came[: place.start] + TEXT + b"new" + came[place.end :]


OBSERVE = """
set "n" ""; set "c" "";
foreverypart { set "c" "${c}."; if header :mime :matches :contenttype "content-type" "*" { set "n" "${n}${1};"; } else { set "n" "${n}?;"; } }
if body :raw :contains "needle" { set "n" "${n}needle"; }
if header :matches "subject" "*" { set "n" "${n}[${1}]"; }
fileinto "seen ${n}"; fileinto "parts ${c}";
"""
STEPS = st.sampled_from(
    [
        'addheader "X-A" "b";',
        'addheader :last "X-B" "c";',
        'deleteheader "Subject";',
        'enclose :subject "outer" "look";',
        'enclose :headers ["To", "Date"] "a needle";',
        'replace "all of it";',
        'replace :mime :subject "s" "Content-Type: text/html\n\n<p>needle</p>";',
        'foreverypart { if header :mime :type "content-type" "image" { replace "gone"; } }',
        'foreverypart { if header :mime :type "content-type" "text" { replace :mime "Content-Type: a/b\n\nneedle"; break; } }',
        'foreverypart { foreverypart { if header :mime :subtype "content-type" "plain" { replace "ü"; } } }',
        'foreverypart { if header :mime :type "content-type" "text" { enclose "x"; replace "y"; break; } }',
        'foreverypart { if header :mime :type "content-type" "message" { replace "no message"; } }',
    ]
)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), shape=st.sampled_from(sorted(PROPER)), steps=st.lists(STEPS, max_size=4))
def test_what_tests_see_is_what_is_stored(seed: int, shape: str, steps: list[str]) -> None:
    came = generate_shape(shape, seed)
    outcome = outcome_of("".join(steps) + OBSERVE, came)
    stored = taken(outcome, came)
    assert all(octets == stored[files(outcome)[0]] for octets in stored.values())
    assert files(outcome_of(OBSERVE, stored[files(outcome)[0]][0])) == files(outcome)
