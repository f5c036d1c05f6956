"""Scripts in the extensions that do something, or look elsewhere than at the header."""

from __future__ import annotations

from typing import Final

from tests.sieve.corpus import Pair, each

__all__ = ["EXTENSIONS"]

EXTENSIONS: Final[list[Pair]] = [
    # --- RFC 5230, RFC 6131
    Pair("vacation", 'require "vacation"; vacation "I am away";'),
    Pair("vacation in days", 'require "vacation"; vacation :days 23 :subject "gone" :handle "x" "I am away";'),
    Pair("vacation at once", 'require "vacation"; vacation :days 0 "I am away";'),
    Pair("vacation for ever", 'require "vacation"; vacation :days 9999 "I am away";'),
    Pair("vacation in seconds", 'require "vacation-seconds"; vacation :seconds 172800 "I am away";'),
    Pair("vacation twice", 'require "vacation"; vacation "I am away"; vacation "really";'),
    Pair("vacation and reject", 'require ["vacation", "reject"]; vacation "I am away"; reject "no";'),
    Pair("vacation and discard", 'require ["vacation"]; discard; vacation "I am away";'),
    # --- RFC 5429
    Pair("reject", 'require "reject"; reject "no, thanks";'),
    Pair("reject and keep", 'require "reject"; keep; reject "no, thanks";'),
    Pair("reject and fileinto", 'require ["fileinto", "reject"]; reject "no, thanks"; fileinto "a";'),
    Pair("reject and discard", 'require ["reject"]; discard; reject "no, thanks";'),
    Pair("reject twice", 'require ["reject"]; reject "no, thanks"; reject "really";'),
    # --- RFC 5232
    Pair(
        "flags",
        r"""require ["imap4flags", "fileinto"]; setflag "\\Seen"; addflag ["$label1  \\Flagged", "\\seen"]; fileinto "a";
        removeflag "\\SEEN"; fileinto "b"; fileinto :flags "x y" "c"; fileinto :flags "" "d"; setflag ""; fileinto "e";
        addflag ["", "junk"]; keep;""",
    ),
    Pair("flags of the implicit keep", r'require "imap4flags"; setflag ["\\Seen", "$Forwarded"];'),
    Pair(
        "flags that are none",
        r'require "imap4flags"; setflag ["\\Recent", "\\Nonsense", "a(b", "ok", "\\Deleted"]; keep;',
    ),
    Pair(
        "hasflag",
        each(
            "imap4flags relational comparator-i;ascii-numeric",
            r"""
            hasflag "a"
            hasflag "c"
            hasflag "c b"
            hasflag :contains "unk"
            hasflag :matches "*a?e*"
            hasflag :count "eq" :comparator "i;ascii-numeric" "4"
            hasflag "\\seen"
            hasflag "\\flagged"
            hasflag ["x", "B"]
            """,
            before=r'setflag ["A B", "$Label\\Seen", "\\Seen", "junk"];',
        ),
    ),
    Pair(
        "flags in variables",
        r"""require ["imap4flags", "fileinto", "variables", "relational"];
        set "v" "A b"; addflag "v" "c a"; removeflag "v" "B"; fileinto :flags "${v}" "a";
        setflag "w" ["\\Seen", "x"]; fileinto :flags ["${v}", "${w}"] "b"; keep;
        if hasflag "v" "a" { fileinto "1"; } if hasflag ["v", "w"] "x" { fileinto "2"; }
        if hasflag "none" "x" { fileinto "3"; } if hasflag :count "eq" ["v", "w"] "4" { fileinto "4"; }""",
    ),
    # --- RFC 5293
    Pair(
        "editheader",
        each(
            "editheader variables",
            """
            header "x-new" "value"
            exists "x-number"
            header "x-caffeine" "C8H10N4O2"
            header :matches "subject" "changed*"
            header "x-two" "first"
            header :contains "received" "two.example"
            header "x-last" "end"
            """,
            before="""addheader "X-New" "value"; deleteheader "X-Number"; deleteheader "x-caffeine" "nonsense";
            deleteheader "Subject"; addheader "Subject" "changed it"; addheader "X-Two" "second"; addheader "X-Two" "first";
            deleteheader :index 2 "X-Two"; deleteheader "Received"; addheader :last "X-Last" "end";""",
        ),
    ),
    Pair(
        "deleteheader by value",
        each(
            "editheader index",
            """
            header :index 1 "x-a" "3"
            header :index 2 "x-a" "1"
            header :index 3 "x-a" "1"
            exists "x-b"
            """,
            before="""addheader "X-A" "1"; addheader "X-A" "2"; addheader "X-A" "3"; addheader "X-A" "24";
            deleteheader :matches "X-A" "2*"; addheader "X-B" "1"; addheader "X-B" "2";
            deleteheader :index 1 :last :is "X-B" "2"; deleteheader :index 1 :contains "X-B" "2";
            deleteheader :index 5 "X-B";""",
        ),
    ),
    # --- RFC 5435, RFC 5436
    Pair("notify", 'require "enotify"; notify :message "it came" "mailto:a@example.org";'),
    Pair("notify by its URI", 'require "enotify"; notify "mailto:a@example.org?subject=it%20came&cc=b@example.org";'),
    Pair("notify otherwise", 'require ["enotify", "variables"]; set "m" "tel:+1"; notify "${m}";'),
    Pair(
        "what can be notified",
        each(
            "enotify",
            """
            valid_notify_method "mailto:a@example.org"
            valid_notify_method "tel:+14085551212"
            valid_notify_method ["mailto:a@example.org", "xmpp:b@example.org"]
            valid_notify_method "mailto:no address"
            valid_notify_method "mailto:a@example.org?body=%"
            valid_notify_method "mailto:a@example.org?to=b@example.org&subject=x&body=y"
            notify_method_capability "mailto:a@example.org" "Online" "maybe"
            notify_method_capability "mailto:a@example.org" "Online" "yes"
            notify_method_capability "tel:+14085551212" "Online" "maybe"
            notify_method_capability "mailto:a@example.org" "nonsense" "maybe"
            """,
        ),
    ),
    Pair(
        "to notify two",
        each("enotify", 'valid_notify_method "mailto:a@example.org,b@example.org"'),
        ours=("fileinto 1",),
        why="RFC 6068 section 2: commas part the addresses; there only %2C does",
    ),
    Pair(
        "encodeurl",
        'require ["enotify", "variables", "fileinto"]; set :encodeurl "u" "a b/ü~-_.?"; fileinto "${u}";',
    ),
    # --- RFC 5490, RFC 8579, RFC 7352, RFC 5183, RFC 5235, RFC 5463
    Pair("create", 'require ["mailbox", "fileinto"]; fileinto :create "a/b";'),
    Pair("special use", r'require ["special-use", "fileinto"]; fileinto :specialuse "\\Junk" "Spam";'),
    Pair("mailboxexists", each("mailbox", 'mailboxexists "Nowhere"\nmailboxexists ["INBOX", "Nowhere"]\nmailboxexists "INBOX"')),
    Pair("duplicate", each("duplicate", 'duplicate\nduplicate :header "x-nonsense"\nduplicate :uniqueid "x" :seconds 9')),
    Pair(
        "environment",
        each(
            "environment relational",
            """
            environment "phase" "post"
            environment "location" "MS"
            environment :contains "nonsense" ""
            environment :count "eq" "phase" "1"
            """,
        ),
    ),
    Pair(
        "spamtest",
        each(
            "spamtest relational comparator-i;ascii-numeric",
            """
            spamtest "0"
            spamtest :value "ge" :comparator "i;ascii-numeric" "4"
            spamtest :value "ge" :comparator "i;ascii-numeric" "6"
            spamtest :count "eq" "1"
            """,
        ),
    ),
    Pair(
        "spamtest in percent",
        each("spamtestplus", 'spamtest :percent "40"\nspamtest :percent "0"'),
    ),
    Pair("spamtest of what was not tested", each("spamtest", 'spamtest "0"'), "bare"),
    Pair(
        "spamtest counted of what was not tested",
        each("spamtest relational", 'spamtest :count "eq" "0"\nspamtest :count "eq" "1"'),
        "bare",
        ours=("fileinto 1",),
        why="RFC 5235 section 3.1: the count is 0 where nothing was tested",
    ),
    Pair("virustest", each("virustest relational", 'virustest "1"\nvirustest "0"\nvirustest :value "ge" "5"')),
    Pair(
        "ihave",
        'require ["ihave", "fileinto"]; if ihave "nonsense" { nonsense "x"; } elsif ihave "copy" { fileinto :copy "a"; }'
        ' if not ihave ["fileinto", "nonsense"] { fileinto "b"; }',
    ),
    # --- RFC 5703
    Pair(
        "mime",
        each(
            "mime relational comparator-i;ascii-numeric",
            """
            header :mime :type "content-type" "multipart"
            header :mime :subtype "content-type" "mixed"
            header :mime :contenttype "content-type" "multipart/mixed"
            header :mime :param "boundary" "content-type" "outer"
            header :mime :type "content-type" "text"
            header :mime :anychild :type "content-type" "text"
            header :mime :anychild :contenttype "content-type" "text/html"
            header :mime :anychild :param "filename" :contains "content-disposition" "important"
            header :mime :anychild :param ["name", "x"] :contains "content-type" "photo"
            header :mime :anychild "x-part" "html"
            header :mime "x-part" "html"
            header "x-part" "html"
            header :mime :anychild :subtype "content-disposition" ""
            header :mime :anychild :type "content-disposition" "inline"
            header :mime :anychild :contenttype "content-disposition" "attachment"
            header :mime :anychild :type "x-part" ""
            header :mime :anychild :type "x-nonsense" ""
            address :mime :anychild "from" "inner@example.net"
            address :mime "from" "inner@example.net"
            exists :mime :anychild "x-part"
            exists :mime :anychild ["x-part", "content-disposition"]
            exists :mime "x-part"
            header :mime :anychild "subject" "enclosed message"
            header :mime :anychild :count "eq" :comparator "i;ascii-numeric" "x-part" "2"
            header :mime :anychild :count "eq" :comparator "i;ascii-numeric" "content-type" "8"
            """,
        ),
        "nested",
    ),
    Pair(
        "every part",
        """require ["mime", "foreverypart", "fileinto", "variables"];
        set "n" "";
        foreverypart {
            set "n" "${n}.";
            if header :mime :matches :contenttype "content-type" "*/*" { fileinto "${n}${1}-${2}"; }
            if header :mime :matches "subject" "*" { fileinto "${n}subject-${1}"; }
            if header :matches "subject" "*" { fileinto "${n}top-${1}"; }
        }""",
        "nested",
    ),
    Pair(
        "a loop that is left",
        """require ["mime", "foreverypart", "fileinto", "variables"];
        set "n" "";
        foreverypart {
            set "n" "${n}.";
            if header :mime :contenttype "content-type" "text/html" { break; }
            fileinto "${n}";
        }""",
        "nested",
    ),
    Pair(
        "loops in loops",
        """require ["mime", "foreverypart", "fileinto", "variables"];
        set "n" "";
        foreverypart {
            set "n" "${n}.";
            set "m" "";
            foreverypart {
                set "m" "${m}_";
                if header :mime :matches :contenttype "content-type" "*/*" { fileinto "${n}${t}${m}${1}-${2}"; }
            }
        }""",
        "nested",
    ),
    Pair(
        "extracttext",
        """require ["mime", "foreverypart", "fileinto", "variables", "extracttext"];
        set "n" "";
        foreverypart {
            set "n" "${n}.";
            if header :mime :contenttype "content-type" ["text/plain", "text/html", "image/png", "multipart/mixed"] {
                extracttext :first 2 "x"; fileinto "${n}${x}"; extracttext :first 2 :upper "x"; fileinto "${n}${x}";
            }
        }""",
        "nested",
    ),
]
