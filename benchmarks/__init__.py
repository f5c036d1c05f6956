"""Speed of the suite beside Debian's Dovecot and Postfix, in one run, on one machine: ratios, and CPU per operation."""
