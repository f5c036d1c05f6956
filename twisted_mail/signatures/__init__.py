"""Signatures over messages: DKIM and ARC, made and checked."""
