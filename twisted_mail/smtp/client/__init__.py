"""SMTP, submission and LMTP, sending (RFC 5321, RFC 6409, RFC 2033).

`conversation` takes octets and gives octets, and knows neither sockets nor clocks; its Twisted end is `relay.connections`.
"""
