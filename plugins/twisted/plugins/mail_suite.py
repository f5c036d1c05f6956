"""Makes ``twistd mail`` and ``twist mail`` ours.

Twisted ships a plugin that is called ``mail`` too. Which of two equal names wins depends on the order of folders and
on the command (twistd takes the first, twist the last), so the built-in one is given another name before anybody looks:
every plugin is imported before one is chosen. Twisted's own stays reachable as ``twisted-mail``.

The name of this module and of `mail` stay for ever: Twisted's plugin cache remembers them.
"""

from twisted.application.service import ServiceMaker

try:
    from twisted.plugins import twisted_mail as _builtin
except ImportError:  # a Twisted without its own mail plugin
    pass
else:
    _builtin.TwistedMail.tapname = "twisted-mail"

mail = ServiceMaker(
    "Twisted mail suite",
    "twisted_mail.tap",
    "A mail server: SMTP, submission, LMTP, IMAP4 and POP3 over one account store.",
    "mail",
)
