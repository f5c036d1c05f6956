"""Scripts in the language of RFC 5228 and the extensions that add to its tests and strings."""

from __future__ import annotations

from typing import Final

from tests.sieve.corpus import Pair, each

__all__ = ["LANGUAGE"]

LANGUAGE: Final[list[Pair]] = [
    # --- RFC 5228: actions and control
    Pair("nothing", ""),
    Pair("comments", "# one\n/* two\n * three */ keep; # four\n"),
    Pair("discard", "discard;"),
    Pair("keep and discard", "keep; discard;"),
    Pair("keep twice", "keep; keep;"),
    Pair("keep and its name", 'require "fileinto"; keep; fileinto "INBOX";'),
    Pair("the same mailbox twice", 'require "fileinto"; fileinto "a"; fileinto "b"; fileinto "a";'),
    Pair("redirect", 'redirect "bart@example.edu";'),
    Pair("redirect and keep", 'redirect "bart@example.edu"; keep;'),
    Pair("redirect twice", 'redirect "bart@example.edu"; redirect "bart@example.edu"; redirect "lisa@example.edu";'),
    Pair("redirect by a name and an address", 'redirect "Bart <bart@example.edu>";'),
    Pair("redirect to what is no address", 'redirect "not an address";'),
    Pair("redirect to a list", 'redirect "a@example.org, b@example.org";'),
    Pair("stop", 'require "fileinto"; fileinto "a"; stop; fileinto "b";'),
    Pair("stop keeps", "stop; discard;"),
    Pair(
        "if elsif else",
        'require "fileinto"; if header :contains "from" "coyote" { fileinto "a"; } elsif true { fileinto "b"; } else { discard; }'
        ' if false { fileinto "c"; } elsif false { fileinto "d"; } else { fileinto "e"; }',
    ),
    Pair("a multi-line string", 'require "reject"; reject text: # comment\nFirst\n..dot\n.\n;'),
    Pair(
        "nested tests",
        each(
            "",
            """
            allof (true, true)
            allof (true, false)
            anyof (false, true)
            anyof (false, false)
            not false
            not not true
            not anyof (false, allof (true, not false))
            allof (anyof (true, false), not allof (true, false))
            """,
        ),
    ),
    # --- what is wrong with a script
    *[
        Pair(f"wrong: {script[:40]}", script)
        for script in (
            'fileinto "a";',
            'require "fileinto"; fileinto "a"',
            'require "nonsense"; keep;',
            'keep; require "fileinto";',
            "keep",
            "nonsense;",
            "if true keep;",
            "if true { keep; ",
            "else { keep; }",
            "if { keep; }",
            'if header "subject" { keep; }',
            'if header :is :contains "subject" "x" { keep; }',
            'if header :nonsense "subject" "x" { keep; }',
            'if header :comparator "i;nonsense" "subject" "x" { keep; }',
            'if header :contains :comparator "i;ascii-numeric" "subject" "x" { keep; }',
            'if size :over :under 1 { keep; }',
            "if size 1 { keep; }",
            "if size :over { keep; }",
            'if size :over "1" { keep; }',
            "if allof { keep; }",
            "if allof (true { keep; }",
            "if not (true) { keep; }",
            'require "fileinto"; fileinto ["a", "b"];',
            'redirect 7;',
            'keep "a";',
            "stop 1;",
            'discard; discard { keep; }',
            '"keep";',
            'require "variables"; set "1a" "x";',
            'require "variables"; set "a b" "x";',
            'require "variables"; set :lower :upper "a" "x";',
            'require ["imap4flags"]; setflag "variable" "\\\\Seen";',
            'require "vacation"; vacation;',
            'require "vacation"; vacation :days 1 :seconds 3 "x";',
            'require "enotify"; notify :importance "4" "mailto:a@example.org";',
            'require "relational"; if header :count "xx" "subject" "1" { keep; }',
            'require "index"; if header :last "subject" "1" { keep; }',
            'require ["mime"]; if header :anychild "subject" "x" { keep; }',
            'require ["foreverypart"]; break;',
            'require ["foreverypart"]; foreverypart :name "a" { break :name "b"; }',
            'require ["extracttext", "variables"]; extracttext "x";',
            'require "editheader"; addheader "X A" "x";',
            'require "duplicate"; if duplicate :header "a" :uniqueid "b" { keep; }',
            'if header "subject" "a" { keep; } elsif { keep; }',
            "keep; /* never ends",
            'redirect "a@example.org" ; keep "',
        )
    ],
    Pair(
        "wrong: last of no index",
        'require "editheader"; deleteheader :last "X-A";',
        ours=("invalid",),
        why="RFC 5293 section 5: :last without :index MUST be an error",
    ),
    # --- RFC 5228: tests
    Pair(
        "header",
        each(
            "",
            """
            header :is "subject" "i have a present for you"
            header "SUBJECT" "I have a present for you"
            header :is "subject" "I have a present"
            header :contains "subject" "PRESENT"
            header :contains "subject" ""
            header :contains "x-nonsense" ""
            header :contains "x-empty" ""
            header :is "x-empty" ""
            header :matches "subject" "*present*"
            header :matches "subject" "?*"
            header :matches "x-empty" "?*"
            header :matches "x-empty" "*"
            header :matches "x-caffeine" "C8H10?402"
            header :matches "x-caffeine" "c?h10n?o2"
            header :contains ["to", "cc"] "wolf"
            header :contains ["x-no", "cc"] ["zzz", "CAROL"]
            header :is :comparator "i;octet" "subject" "i have a present for you"
            header :is :comparator "i;octet" "subject" "I have a present for you"
            header :contains :comparator "i;octet" "x-caffeine" "c8"
            header :contains :comparator "i;ascii-casemap" "x-caffeine" "c8"
            header :is "x-number" "7"
            header :is "x-number" "42"
            header :is "importance" "high"
            header :contains "received" "two.example"
            header :contains "return-path" "coyote"
            header :is "message-id" "<present-1@desert.example.org>"
            header :is "x caffeine" "x"
            """,
        ),
    ),
    Pair(
        "encoded header",
        each(
            "",
            """
            header :is "subject" "Grüße aus der Schönen Stadt"
            header :contains "subject" "schönen"
            header :contains "subject" "SCHÖNEN"
            header :contains "from" "jürgen"
            header :is "x-folded" "one two three"
            header :contains "x-folded" "one"
            header :is "x-raw" "café au lait"
            header :contains "reply-to" "Not, a list"
            header :matches "subject" "Gr??e*"
            header :matches "x-stars" "a\\\\*b\\\\?c*"
            header :matches "x-stars" "a\\\\*b?c\\\\\\\\d"
            header :is "x-quoted" "\\"quoted\\" 'text'"
            header :contains :comparator "i;octet" "subject" "Grüße"
            """,
        ),
        "encoded",
    ),
    Pair(
        "a field folded by a tab",
        each("", 'header :is "x-folded" "one\ttwo   three"\nheader :is "x-folded" "one two   three"'),
        "encoded",
        ours=("fileinto 1",),
        why="RFC 5322 section 2.2.3: unfolding takes the line ends away and nothing else; there a tab becomes a space",
    ),
    Pair(
        "a wildcard for one character",
        each("", 'header :matches "x-raw" "caf? au lait"\nheader :matches "x-raw" "caf?? au lait"'),
        "encoded",
        ours=("fileinto 1",),
        why="chosen: a question mark is one character; RFC 5228 section 2.7.1 has one octet by this comparator",
    ),
    Pair(
        "address",
        each(
            "",
            """
            address :is "from" "coyote@desert.example.org"
            address :is :all "from" "COYOTE@DESERT.example.org"
            address :is :localpart "from" "coyote"
            address :is :domain "from" "desert.example.org"
            address :domain :contains "from" "example"
            address :domain :matches "from" "*.org"
            address :localpart "to" "roadrunner+birds"
            address :domain "to" "forest.example"
            address :all "cc" "ann@example.org"
            address :all "cc" "bob@example.net"
            address :all "cc" "carol@example.org"
            address :all "cc" "friends"
            address :contains "from" "wile"
            address :contains ["from", "to", "cc"] "example.net"
            address :is "bcc" ""
            address :contains "sender" ""
            address :all :comparator "i;octet" "to" "wolf@forest.example"
            address :all :comparator "i;octet" "to" "Wolf@Forest.Example"
            not address :is "from" "x@example.org"
            """,
        ),
    ),
    Pair(
        "addresses that are none",
        each(
            "",
            """
            address :domain :contains "to" ""
            address :is "from" "juergen@example.de"
            address :localpart "reply-to" "list"
            """,
        ),
        "encoded",
    ),
    Pair(
        "a group of nobody",
        each("", 'address :all :contains "to" "undisclosed"\nnot address :contains "to" ""'),
        "encoded",
        ours=("fileinto 2",),
        why="RFC 5228 section 5.1: names of groups are no part of an address; there an empty group is a bad address",
    ),
    Pair(
        "exists and size",
        each(
            "",
            """
            exists "from"
            exists ["from", "to"]
            exists ["from", "x-nonsense"]
            exists "x-empty"
            not exists "sender"
            size :over 100
            size :under 100
            size :over 1K
            size :over 1M
            size :under 1G
            """,
        ),
    ),
    Pair(
        "a message of one line",
        each(
            "",
            """
            exists "from"
            header :contains "from" ""
            address :contains "from" ""
            header :is "subject" "bare"
            """,
        ),
        "bare",
    ),
    Pair(
        "envelope",
        each(
            "envelope subaddress",
            """
            envelope "from" "coyote@desert.example.org"
            envelope :is :localpart "from" "coyote"
            envelope :domain "to" "acme.example.com"
            envelope :all :contains ["from", "to"] "roadrunner"
            envelope :user "to" "roadrunner"
            envelope :detail "to" "birds"
            envelope :detail "from" ""
            envelope :contains "to" ""
            """,
        ),
    ),
    Pair(
        "subaddress",
        each(
            "subaddress",
            """
            address :user "to" "roadrunner"
            address :detail "to" "birds"
            address :detail "to" ""
            address :user "from" "coyote"
            address :detail "from" ""
            address :detail :contains "from" ""
            not address :detail :contains "from" ""
            """,
        ),
    ),
    Pair("copy", 'require ["copy", "fileinto"]; fileinto :copy "a"; redirect :copy "b@example.org";'),
    Pair(
        "encoded characters",
        each(
            "encoded-character",
            """
            header :contains "x-caffeine" "${hex:43 38}"
            header :contains "x-caffeine" "${unicode:43}8"
            header :contains "x-caffeine" "${hex:4G}"
            header :contains "subject" "${unicode:0070 72}esent"
            """,
        ),
    ),
    # --- RFC 5229
    Pair(
        "variables",
        """require ["variables", "fileinto"];
        set "name" "value"; set "empty" ""; set :upper "up" "${name}"; set :upperfirst :lower "mixed" "vALUE";
        set :length "length" "${name}"; set :quotewildcard "quoted" "a*b?c"; set "NAME" "changed";
        fileinto "n-${name}"; fileinto "e-${empty}-"; fileinto "${up}"; fileinto "${mixed}"; fileinto "l${length}";
        fileinto "${quoted}"; fileinto "${unknown}x"; fileinto "$${name}"; fileinto "${na me}"; fileinto "${}";
        if header :matches "subject" "I have a * for ?ou" { fileinto "m-${0}"; fileinto "${1}-${2}-${3}"; }
        if header :matches "subject" "nothing*" { discard; }
        fileinto "still-${1}";
        if address :matches :domain "from" "*.example.*" { fileinto "${1}/${2}"; }
        if string :is "${name}" "changed" { fileinto "s1"; }
        if string :matches "a b c" "* * *" { fileinto "${3}${2}${1}"; }
        if not string :is "${empty}" "" { fileinto "s2"; }
        """,
    ),
    Pair(
        "what wildcards take",
        """require ["variables", "fileinto"];
        if string :matches "aXbXc" "*X*" { fileinto "1-${1}-${2}"; }
        if string :matches "[acme] list: text" "[*] *: *" { fileinto "2-${1}-${2}-${3}"; }
        if string :matches "abc" "?*?" { fileinto "3-${1}-${2}-${3}"; }
        if string :matches "abc" "*?" { fileinto "4-${1}-${2}"; }
        if string :matches "aaa" "*a*a" { fileinto "5-${1}-${2}"; }
        if string :matches "frop FROP" "*fro* *" { fileinto "6-${1}-${2}-${3}"; }
        if string :matches ["one", "two"] ["x*", "t*"] { fileinto "7-${1}"; }
        if string :matches "a*b" "a\\\\*?" { fileinto "8-${1}"; }
        if anyof (string :matches "q" "r*", string :matches "second" "s*") { fileinto "9-${1}"; }
        """,
    ),
    # --- RFC 5231
    Pair(
        "relational",
        each(
            "relational comparator-i;ascii-numeric",
            """
            header :value "ge" :comparator "i;ascii-numeric" "x-number" "42"
            header :value "gt" :comparator "i;ascii-numeric" "x-number" "42"
            header :value "lt" :comparator "i;ascii-numeric" "x-number" "8"
            header :value "eq" :comparator "i;ascii-numeric" "x-number" "42"
            header :value "ne" :comparator "i;ascii-numeric" "x-number" "42"
            header :is :comparator "i;ascii-numeric" "x-number" "42"
            header :is :comparator "i;ascii-numeric" "subject" "x"
            header :value "lt" :comparator "i;ascii-numeric" "subject" "1"
            header :count "eq" :comparator "i;ascii-numeric" "x-number" "2"
            header :count "ge" :comparator "i;ascii-numeric" ["x-number", "received"] "4"
            header :count "eq" "x-nonsense" "0"
            header :count "eq" "x-empty" "1"
            address :count "ge" :comparator "i;ascii-numeric" ["to", "cc"] "5"
            address :count "eq" :comparator "i;ascii-numeric" "cc" "3"
            header :value "gt" "subject" "h"
            header :value "lt" "subject" "J"
            header :value "lt" "subject" "i"
            """,
        ),
    ),
    Pair(
        "index",
        each(
            "index",
            """
            header :index 1 "x-number" "0042"
            header :index 2 "x-number" "7"
            header :index 3 "x-number" "7"
            header :index 1 :last "x-number" "7"
            header :index 2 :last "x-number" "0042"
            header :index 1 :contains "received" "one.example"
            header :index 2 :contains "received" "two.example"
            address :index 1 :domain "to" "acme.example.com"
            """,
        ),
    ),
    Pair(
        "date",
        each(
            "date relational index",
            """
            date :is "date" "date" "2026-07-06"
            date :is :originalzone "date" "hour" "09"
            date :is :zone "+0000" "date" "hour" "07"
            date :is :zone "-0500" "date" "time" "02:59:58"
            date :is :originalzone "date" "zone" "+0200"
            date :is "date" "year" "2026"
            date :is "date" "month" "07"
            date :is "date" "day" "06"
            date :is "date" "minute" "59"
            date :is "date" "second" "58"
            date :is "date" "weekday" "1"
            date :is :originalzone "date" "iso8601" "2026-07-06T09:59:58+02:00"
            date :is :originalzone "date" "std11" "Mon, 06 Jul 2026 09:59:58 +0200"
            date :is :originalzone "date" "std11" "Mon, 6 Jul 2026 09:59:58 +0200"
            date :is "date" "julian" "61227"
            date :value "ge" "date" "date" "2026-01-01"
            date :is :originalzone "received" "second" "05"
            date :is "subject" "year" "2026"
            date :contains "x-nonsense" "year" ""
            currentdate :value "ge" "year" "2020"
            """,
        ),
    ),
    Pair(
        "date by index",
        each("date index", '''date :index 2 :originalzone "received" "second" "59"
                           date :index 1 :last :originalzone "received" "second" "59"'''),
        ours=("fileinto 1", "fileinto 2"),
        why="RFC 5260 section 6: it counts the fields named; there :index does nothing to date",
    ),
    Pair(
        "date across midnight",
        each(
            "date",
            """
            date :is :originalzone "date" "date" "2026-01-02"
            date :is :zone "+0000" "date" "date" "2026-01-03"
            date :is :zone "+0000" "date" "weekday" "6"
            date :is :originalzone "date" "weekday" "5"
            date :is :zone "+0545" "date" "time" "10:15:00"
            """,
        ),
        "encoded",
    ),
    Pair(
        "regex",
        each(
            "regex",
            """
            header :regex "subject" "^I have"
            header :regex "subject" "PRESENT"
            header :regex :comparator "i;octet" "subject" "PRESENT"
            header :regex "x-caffeine" "^[A-Z0-9]+$"
            header :regex "x-caffeine" "C([0-9])H[[:digit:]]+"
            header :regex "subject" "(present|absent)"
            header :regex "x-empty" "^$"
            address :regex :localpart "from" "^coy.te$"
            """,
        ),
    ),
    Pair(
        "regex captures",
        """require ["regex", "variables", "fileinto"];
        if header :regex "subject" "a ([a-z]+) for (you|me)" { fileinto "${0}"; fileinto "${1}-${2}"; }
        if header :regex "list-id" "<([a-z]+)\\\\.([^>]*)>" { fileinto "lists/${1}"; }
        """,
    ),
    # --- RFC 5173
    Pair(
        "body",
        each(
            "body",
            """
            body :contains "make money fast"
            body :raw :contains "anvil"
            body :contains "nonsense"
            body :text :contains "café"
            body :content "text" :contains "cliff"
            body :content "text/plain" :contains "cliff"
            body :content "text/html" :contains "cliff"
            body :contains ""
            body :raw :matches "Look*"
            """,
        ),
    ),
    Pair(
        "body of parts",
        each(
            "body",
            """
            body :contains "Hello"
            body :contains "decoded secret"
            body :raw :contains "decoded secret"
            body :raw :contains "ZGVjb2RlZCBzZWNyZXQK"
            body :raw :contains "multi-part"
            body :contains "multi-part"
            body :content "multipart" :contains "multi-part message"
            body :content "multipart" :contains "epilogue"
            body :content "multipart" :contains "Hello"
            body :content "text/html" :contains "HTML is for"
            body :content "text/html" :contains "for <b>readers"
            body :content ["image/png", "text/html"] :contains "readers"
            body :content "message/rfc822" :contains "enclosed message"
            body :content "text" :contains "grüße"
            body :content "" :contains "decoded secret"
            body :content "image/" :contains ""
            body :content "image/png/x" :contains ""
            body :content "video" :contains ""
            """,
        ),
        "nested",
    ),
]
