"""What `twistd mail` runs: options, configuration and the wiring of services."""

if __name__ != "twisted_mail.tap":
    raise ImportError("import this package as twisted_mail.tap")
