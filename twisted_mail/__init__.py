"""A distributed mail server suite on Twisted: SMTP, submission, LMTP, IMAP4 and POP3 over one account store."""

__version__ = "0.1.0"
