"""Sieve (RFC 5228): scripts by which users sort their mail, compiled once and run without any effect of their own.

A run says what is to be done (`values.Action`); the delivery room does it.
"""

from twisted_mail.sieve.message import Message
from twisted_mail.sieve.script import Script, compile_script
from twisted_mail.sieve.values import CompileLimits, Include, Outcome, RunEnvironment, RunLimits, SieveError
from twisted_mail.sieve.vocabulary import capabilities

__all__ = [
    "CompileLimits",
    "Include",
    "Message",
    "Outcome",
    "RunEnvironment",
    "RunLimits",
    "Script",
    "SieveError",
    "capabilities",
    "compile_script",
]
