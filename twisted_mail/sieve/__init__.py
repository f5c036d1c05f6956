"""Sieve (RFC 5228): scripts by which users sort their mail, compiled once and run without any effect of their own.

A run says what is to be done (`values.Action`); the delivery room does it.
"""
