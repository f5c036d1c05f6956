"""The back ends: the interfaces of `interfaces`, and a folder per engine (memory, sqlite, files)."""

if __name__ != "twisted_mail.storage":
    raise ImportError("import this package as twisted_mail.storage")
