"""Messages that servers write to people and to each other: delivery status, abuse, TLS; written and read."""
