"""Who may log in: SASL mechanisms, passwords, throttles, the directory behind a `twisted.cred` portal; and TLS."""
