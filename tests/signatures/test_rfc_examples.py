"""The signed messages that the RFCs print, with their keys."""

from __future__ import annotations

from base64 import b64decode

import pytest

from tests.signatures.support import KEYS, NOW, Table, published, read, run, sign, verify
from twisted_mail.signatures import DKIMVerifier, PrivateKey, Result, SigningKey

RFC6376_KEY = (
    "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkMoGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5"
    "ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB"
)
RFC6376_MESSAGE = b"""\
DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;
      c=simple/simple; q=dns/txt; i=joe@football.example.com;
      h=Received : From : To : Subject : Date : Message-ID;
      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB
      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut
      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV
      4bmp/YzhwvcubU4=;
Received: from client1.football.example.com  [192.0.2.1]
      by submitserver.example.com with SUBMISSION;
      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game. Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")

RFC8463_ED25519 = PrivateKey.load(b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="))
RFC8463_KEYS = {
    "brisbane._domainkey.football.example.com": "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "test._domainkey.football.example.com": "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR"
    "iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5"
    "QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
}
RFC8463_MESSAGE = b"""\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")


@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_the_message_of_rfc_6376_passes(step: int) -> None:
    """Appendix A.2, with the key of appendix C (it signs one space in the body where A.1 prints two)."""
    (found,) = verify(RFC6376_MESSAGE, Table({"brisbane._domainkey.example.com": RFC6376_KEY}), step=step)
    assert (found.result, found.reason) == (Result.PASS, "")
    assert (found.domain, found.identity, found.selector) == ("example.com", "joe@football.example.com", "brisbane")
    assert found.algorithm == "rsa-sha256"
    assert found.signature_start == "AuUoFEfD"


@pytest.mark.parametrize("step", [1, 1 << 16])
def test_both_signatures_of_rfc_8463_pass(step: int) -> None:
    found = verify(RFC8463_MESSAGE, Table(RFC8463_KEYS), step=step)
    assert [(each.result, each.algorithm) for each in found] == [
        (Result.PASS, "ed25519-sha256"),
        (Result.PASS, "rsa-sha256"),
    ]


def test_the_private_key_of_rfc_8463_has_the_record_of_rfc_8463() -> None:
    assert RFC8463_ED25519.record() == RFC8463_KEYS["brisbane._domainkey.football.example.com"]


def test_a_changed_octet_is_found() -> None:
    table = Table({"brisbane._domainkey.example.com": RFC6376_KEY})
    (found,) = verify(RFC6376_MESSAGE.replace(b"hungry", b"Hungry"), table)
    assert (found.result, found.reason) == (Result.FAIL, "body hash did not verify")
    (found,) = verify(RFC6376_MESSAGE.replace(b"dinner ready", b"dinner  ready"), table)
    assert (found.result, found.reason) == (Result.FAIL, "signature did not verify")


def test_what_is_signed_with_the_key_of_rfc_8463_passes() -> None:
    key = SigningKey("football.example.com", "brisbane", RFC8463_ED25519)
    message = RFC8463_MESSAGE[RFC8463_MESSAGE.index(b"From:") :]
    (found,) = verify(sign(message, key), Table(RFC8463_KEYS))
    assert found.result is Result.PASS


def test_a_message_without_signatures_has_no_results() -> None:
    verifier = DKIMVerifier()
    read(b"From: x@example.org\r\n\r\n", verifier.at_body)
    assert run(verifier.results(published(*KEYS), NOW)) == ()
