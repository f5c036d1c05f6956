"""``python -m twisted_mail.admin`` is `mailctl`."""

from twisted_mail.admin import main

main()
