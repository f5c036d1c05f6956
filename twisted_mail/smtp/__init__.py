"""SMTP, submission and LMTP, receiving (RFC 5321, RFC 6409, RFC 2033).

`session` takes octets and gives octets, and knows neither sockets nor clocks; `server` is its Twisted end. `client` is the
sending side.
"""
