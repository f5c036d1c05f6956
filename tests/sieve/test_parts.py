"""foreverypart, break, extracttext and :mime (RFC 5703)."""

from __future__ import annotations

import pytest

from tests.sieve.corpus import MESSAGES
from tests.sieve.scripts import A, fails, files, holds, run
from twisted_mail.sieve import RunLimits
from twisted_mail.sieve.values import FileInto, Keep

NESTED = MESSAGES["nested"]
REQUIRE = 'require ["mime", "foreverypart", "fileinto", "variables", "extracttext", "index", "relational", "editheader"];\n'


def filed(text: str, octets: bytes = NESTED) -> list[str]:
    outcome = run(REQUIRE + text, octets)
    assert outcome.error is None, outcome.error
    return files(outcome)


@pytest.mark.parametrize(
    ("test", "true"),
    [
        ('header :mime :type "Content-Type" "multipart"', True),
        ('header :mime :type "Content-Type" "image"', False),
        ('header :mime :anychild :contenttype "Content-Type" "text/html"', True),
        ('header :mime :anychild :contenttype "Content-Type" "TEXT/html"', True),
        ('header :mime :anychild :subtype "Content-Type" "png"', True),
        ('header :mime :anychild :param ["filename", "name"] :matches ["content-type", "content-disposition"] "*.png"', True),
        ('header :mime :anychild :param "nonsense" :contains "content-type" ""', False),
        ('header :mime :anychild :param "charset" "content-type" "utf-8"', True),
        ('header :mime :anychild :count "eq" :param "charset" "content-type" "3"', True),
        ('header :mime :anychild :count "eq" :type "content-type" "8"', True),
        ('header :mime :anychild :subtype "content-disposition" ""', True),
        ('header :mime :anychild :type "content-disposition" ["inline"]', True),
        ('header :mime :anychild :type "subject" ""', True),
        ('header :mime :anychild :type "x-nonsense" ""', False),
        ('header :mime "subject" "whatever"', True),
        ('header :mime :anychild "subject" "enclosed message"', True),
        ('header "subject" "enclosed message"', False),
        ('header :mime :index 2 :anychild :subtype "content-type" "alternative"', True),
        ('address :mime :anychild :localpart "from" "inner"', True),
        ('address :mime "from" "inner@example.net"', False),
        ('address :mime "from" "whoever@example.com"', True),
        ('exists :mime :anychild "x-part"', True),
        ('exists :mime "x-part"', False),
        ('exists :mime :anychild ["x-part", "subject"]', True),
        ('exists :mime :anychild ["x-part", "nonsense"]', False),
    ],
)
def test_fields_of_parts(test: str, true: bool) -> None:
    assert holds(test, NESTED, "mime index relational") is true


def test_parameters_are_read_by_rfc_2231_and_as_mail_has_them() -> None:
    octets = (
        b"Content-Type: application/pdf; name*0*=utf-8''Gr%C3%BC; name*1=sse.pdf\n"
        b"Content-Disposition: attachment; filename=\"=?utf-8?q?Gr=C3=BC=C3=9Fe?=.pdf\"\n\nx"
    )
    assert holds('header :mime :param "name" "content-type" "Grüsse.pdf"', octets, "mime")
    assert holds('header :mime :param "filename" "content-disposition" "Grüße.pdf"', octets, "mime")


def test_a_type_that_makes_no_sense_is_none() -> None:
    octets = b"Content-Type: nonsense; name=a.exe\n\nx"
    assert not holds('header :mime :contains :type "content-type" ""', octets, "mime")
    assert holds('header :mime :param "name" "content-type" "a.exe"', octets, "mime")


def test_every_part_comes_once_depth_first_the_message_itself_first() -> None:
    text = 'foreverypart { if header :mime :matches :contenttype "content-type" "*" { set "n" "${n}${1} "; } } fileinto "${n}";'
    assert filed(text) == [
        "multipart/mixed multipart/alternative text/plain text/html image/png message/rfc822 text/plain text/plain "
    ]
    assert filed('foreverypart { fileinto "x${n}"; set "n" "${n}."; }', A) == ["x"], "one part, though it has no type"


def test_tests_without_mime_see_the_message_inside_of_loops_too() -> None:
    assert filed('foreverypart { if header "subject" "whatever" { set "n" "${n}."; } } fileinto "${n}";') == ["." * 8]
    assert filed('foreverypart { if exists "x-part" { fileinto "x"; } }') == []


def test_a_loop_in_a_loop_goes_through_what_the_part_holds() -> None:
    text = """foreverypart {
        set "t" "-"; if header :mime :matches :contenttype "content-type" "*" { set "t" "${1}"; }
        foreverypart { set "n" "${n}${t};"; } } fileinto "${n}";"""
    assert filed(text) == [
        "multipart/mixed;" * 7 + "multipart/alternative;" * 2 + "message/rfc822;"
    ]


def test_break_leaves_the_innermost_loop_or_the_one_that_it_names() -> None:
    text = """foreverypart :name "outer" {
        set "n" "${n}o";
        foreverypart :name "inner" { set "n" "${n}i"; break%s; }
    } fileinto "${n}";"""
    assert filed(text % "") == ["oioiooooioo"]
    assert filed(text % ' :name "INNER"') == ["oioiooooioo"]
    assert filed(text % ' :name "outer"') == ["oi"]
    hidden = text.replace('"inner"', '"outer"')
    assert filed(hidden % ' :name "outer"') == ["oioiooooioo"], "the nearest of the name"


def test_the_example_of_section_4_1() -> None:
    text = """foreverypart {
        if allof (header :mime :param "filename" :contains "Content-Disposition" "important",
                  header :mime :subtype "Content-Type" "png", size :over 100) { fileinto "INBOX.important"; break; } }"""
    assert filed(text) == ["INBOX.important"]


def test_the_example_of_section_9_3() -> None:
    text = """
        if header :matches "Subject" "*" { set "subject" "${1}"; }
        foreverypart {
            if header :mime :type :is "Content-Type" "text" { extracttext :first 100 "msgcontent"; break; }
        }
        fileinto "${subject}: ${msgcontent}";"""
    assert filed(text) == ["whatever: Hello"]


def test_text_is_extracted_decoded_and_html_as_it_is_seen() -> None:
    text = """foreverypart {
        if header :mime :type "content-type" ["text", "image"] { extracttext "t"; fileinto "${t}"; }
        if header :mime :type "content-type" ["multipart", "message"] { extracttext "t"; if not string "${t}" "" { discard; } }
    }"""
    octets = NESTED.replace(b"ZGVjb2RlZCBzZWNyZXQK", b"ZGVjb2RlZCBzZWNyZXQ=")
    assert filed(text, octets) == ["Hello", "HTML is for readers", "hello world", "grüße", "decoded secret"]


def test_modifiers_change_what_was_cut() -> None:
    text = 'foreverypart { extracttext :first 4 :length "n"; extracttext :upper :first 4 "t"; fileinto "${t}${n}"; break; }'
    assert filed(text, b"Subject: x\n\nhello") == ["HELL4"]


def test_no_more_is_extracted_than_a_variable_holds() -> None:
    text = REQUIRE + 'foreverypart { extracttext "t"; if string :count "eq" "${t}" "1" { keep; } }'
    outcome = run(text, b"Subject: x\n\n" + b"hello " * 100_000, limits=RunLimits(variable_bytes=100))
    assert outcome.error is None and outcome.actions == (Keep(),)


def test_what_is_no_text_is_empty() -> None:
    octets = b"Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n/+7/7g==\n"
    assert filed('foreverypart { extracttext "t"; fileinto "x${t}"; }', octets) == ["x"]
    octets = b"Content-Type: text/plain\nContent-Transfer-Encoding: nonsense\n\nabc\n"
    assert filed('foreverypart { extracttext "t"; fileinto "x${t}"; }', octets) == ["x"]


def test_a_part_included_script_sees_the_part_of_the_loop_around_it() -> None:
    scripts = {"a": 'require ["mime", "fileinto"]; if header :mime :subtype "content-type" "png" { fileinto "png"; }'}
    outcome = run('require ["include", "foreverypart"]; foreverypart { include "a"; }', NESTED, scripts=scripts)
    assert outcome.actions == (FileInto("png"),)


def test_the_header_of_the_message_is_seen_as_edited_inside_of_a_loop() -> None:
    text = """foreverypart { addheader "X-A" "1"; if header :mime "x-a" "1" { fileinto "root"; } break; }"""
    assert filed(text) == ["root"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("break;", "no loop"),
        ('foreverypart :name "a" { break :name "b"; }', "no loop 'b'"),
        ('foreverypart { keep; } break;', "no loop"),
        ('extracttext "x";', "no foreverypart"),
        ('foreverypart { extracttext "1x"; }', "no name"),
        ('if header :anychild "subject" "x" { keep; }', "needs :mime"),
        ('if header :type "subject" "x" { keep; }', "needs :mime"),
        ('if exists :anychild "subject" { keep; }', "needs :mime"),
        ('if header :mime :type :subtype "subject" "x" { keep; }', "exclude"),
        ("foreverypart;", "block"),
        ("foreverypart { " * 11 + "keep;" + "}" * 11, "more than 10 loops"),
    ],
)
def test_what_makes_no_sense_is_an_error(text: str, why: str) -> None:
    assert why in fails(REQUIRE + text).text


def test_loops_over_ten_thousand_parts_end_by_the_steps() -> None:
    octets = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\nX-A: b\n\nx\n" * 10_500
    text = 'foreverypart { if header :mime :anychild :contains "x-a" "c" { discard; } }'
    assert run(REQUIRE + text, octets).error is None
    deep = "foreverypart {" * 2 + 'if header :mime :anychild :contains "x-a" "c" { discard; }' * 5 + "}" * 2
    outcome = run(REQUIRE + deep, octets)
    assert outcome.error is not None and outcome.actions == (Keep(),)
