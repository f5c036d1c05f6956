"""POP3 (RFC 1939 and its extensions): `session` is octets in, octets out; `server` is the Twisted end."""
