"""What unwanted mail talks about: groups of phrases, of which several together are telling; one alone is not.

Text is compared word by word: in lower case, whatever is no letter or digit is a space. One automaton looks for all phrases at
once: that takes a fifth of the time of looking each word up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import re2

__all__ = ["GROUPS", "Group", "talk_of", "words_of"]

_WORD_OCTETS: Final = bytes(
    value + 32 if 65 <= value <= 90 else value if 97 <= value <= 122 or 48 <= value <= 57 or value >= 128 else 32
    for value in range(256)
)


@dataclass(frozen=True, slots=True)
class Group:
    """Phrases of one kind, and what so many of them are worth."""

    sentence: str
    points: tuple[tuple[int, float], ...]
    """(at least so many phrases, points), ascending."""
    phrases: str
    """One a line."""

    def worth(self, number: int) -> float:
        return max((points for least, points in self.points if number >= least), default=0.0)


GROUPS: Final[Mapping[str, Group]] = {
    "advance_fee": Group(
        "it speaks of money that waits for a stranger",
        ((2, 1.0), (3, 2.5), (5, 4.0)),
        """next of kin
        million dollars
        million united states dollars
        united states dollars
        million euros
        million usd
        beneficiary
        beneficiaries
        inheritance
        unclaimed
        deceased
        barrister
        late husband
        late client
        strictly confidential
        utmost confidentiality
        business proposal
        mutual benefit
        consignment
        diplomatic courier
        foreign partner
        western union
        bank draft
        atm card
        transfer of the funds
        transfer this fund
        transfer the money
        release of your funds
        compensation fund
        dying of cancer
        charity work
        erbschaft
        nachlass
        h\u00e9ritage
        herencia""",
    ),
    "drugs": Group(
        "it sells medicine of a kind that sells by mail",
        ((1, 1.0), (2, 2.5), (3, 4.0)),
        """viagra
        cialis
        levitra
        sildenafil
        tadalafil
        online pharmacy
        canadian pharmacy
        cheap meds
        without prescription
        no prescription
        penis
        enlargement
        erectile
        xanax
        tramadol""",
    ),
    "extortion": Group(
        "it threatens, and wants coins",
        ((3, 2.0), (4, 3.0), (5, 4.5)),
        """bitcoin
        bitcoins
        btc
        wallet address
        bitcoin address
        btc address
        webcam
        your camera
        masturbating
        masturbate
        porn
        porn site
        adult site
        adult sites
        recorded you
        recorded a video
        i hacked
        i have hacked
        hacked your
        your password is
        full access to your
        all your contacts
        to your contacts
        your friends and family
        malware
        trojan
        48 hours
        50 hours
        do not contact the police
        i am a hacker
        bitcoin wallet""",
    ),
    "phishing": Group(
        "it wants something confirmed in a hurry",
        ((2, 1.0), (3, 2.0), (4, 2.5), (5, 3.5)),
        """verify your account
        verify your identity
        verify your email
        verify your mailbox
        confirm your account
        confirm your identity
        confirm your password
        validate your
        revalidate
        account has been suspended
        account will be suspended
        account has been limited
        account has been locked
        account will be closed
        account will be deactivated
        will be deactivated
        will be terminated
        permanently disabled
        avoid suspension
        unusual activity
        unusual sign in
        suspicious activity
        unauthorized login
        within 24 hours
        within 48 hours
        click the link below
        click on the link below
        click below to
        update your payment
        update your billing
        mailbox is full
        mailbox is almost full
        mailbox quota
        exceeded its quota
        exceeded your quota
        storage limit
        incoming messages
        dear customer
        dear user
        konto wurde gesperrt
        konto wurde eingeschr\u00e4nkt
        innerhalb von 24 stunden
        best\u00e4tigen sie ihre""",
    ),
    "winnings": Group(
        "it says that something was won",
        ((2, 2.0), (3, 3.5)),
        """you have won
        you ve won
        you are a winner
        lucky winner
        winning number
        winning numbers
        claim your prize
        claim your reward
        lottery
        sweepstakes
        cash prize
        you have been selected
        you were selected
        congratulations you""",
    ),
    "selling": Group(
        "it sells as only unwanted mail does",
        ((3, 1.0), (4, 2.0), (6, 3.5)),
        """100 free
        risk free
        act now
        limited time
        lose weight
        weight loss
        burn fat
        make money
        make money fast
        extra income
        work from home
        be your own boss
        financial freedom
        double your
        get rich
        first page of google
        seo services
        search engine optimization
        guaranteed results
        money back guarantee
        casino
        free spins
        replica watches
        luxury replica
        no obligation
        this is not spam
        while supplies last
        once in a lifetime
        miracle
        amazing offer
        special promotion
        dear friend
        increase sales
        hot singles
        lonely
        investment opportunity
        crypto investment
        guaranteed profit
        cheap""",
    ),
}


def _normal(phrase: str) -> bytes:
    return b" ".join(phrase.encode().translate(_WORD_OCTETS).split())


@lru_cache(maxsize=1)
def _phrases() -> tuple[Any, tuple[tuple[str, str], ...]]:
    """All phrases as one automaton (re2 has no types, hence Any), and (group, phrase) by their numbers in it."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = True
    options.log_errors = False
    found = re2.Set.SearchSet(options)
    numbered = []
    for name, group in GROUPS.items():
        for line in group.phrases.splitlines():
            phrase = _normal(line)
            found.Add(b" " + phrase.replace(b" ", b" +") + b" ")
            numbered.append((name, phrase.decode()))
    found.Compile()
    return found, tuple(numbered)


def words_of(octets: bytes) -> list[bytes]:
    """The words of a text in UTF-8 or ASCII."""
    return octets.translate(_WORD_OCTETS).split()


def talk_of(text: bytes) -> dict[str, tuple[str, ...]]:
    """The phrases that occur in a text in UTF-8 or ASCII, by group; groups without any are left out."""
    phrases, numbered = _phrases()
    numbers = phrases.Match(b" " + text.translate(_WORD_OCTETS) + b" ")
    found: dict[str, tuple[str, ...]] = {}
    for name, phrase in sorted(numbered[number] for number in numbers or ()):
        found[name] = (*found.get(name, ()), phrase)
    return found
