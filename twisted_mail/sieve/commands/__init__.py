"""The commands and tests, a module for each family; `twisted_mail.sieve.vocabulary` puts them together."""
