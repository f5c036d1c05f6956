"""Signatures over messages: DKIM (RFC 6376, 8301, 8463) and ARC (RFC 8617), made and checked.

One `Reading` takes the octets of a message once; what is to be done with it hangs on its header::

    dkim, arc = DKIMVerifier(), ARCVerifier()
    reading = Reading(dkim.at_body, arc.at_body)
    …reading.feed(chunk)… ; reading.close()
    await dkim.results(dns, now), await arc.result(dns, now)

`DKIMSigner` and `ARCSealer` hang there in the same way; what they leave to do (`Unsigned.sign`, `Unsealed.seal`) is pure
arithmetic, for a thread.
"""

from twisted_mail.signatures.arc import ARCVerifier
from twisted_mail.signatures.canonical import BodyHash, Canon
from twisted_mail.signatures.keys import BadKey, NoKey, PrivateKey, PublicKey, parse_key_record
from twisted_mail.signatures.reading import HeaderTooLong, Reading
from twisted_mail.signatures.results import ArcSet, Chain, ChainResult, Limits, Result, Verification
from twisted_mail.signatures.sealing import ARCSealer, CannotSeal, Unsealed
from twisted_mail.signatures.signing import DKIMSigner, SigningKey, Unsigned
from twisted_mail.signatures.verifying import DKIMVerifier

__all__ = [
    "ARCSealer",
    "ARCVerifier",
    "ArcSet",
    "BadKey",
    "BodyHash",
    "CannotSeal",
    "Canon",
    "Chain",
    "ChainResult",
    "DKIMSigner",
    "DKIMVerifier",
    "HeaderTooLong",
    "Limits",
    "NoKey",
    "PrivateKey",
    "PublicKey",
    "Reading",
    "Result",
    "SigningKey",
    "Unsealed",
    "Unsigned",
    "Verification",
    "parse_key_record",
]
