"""The account as an aggregate: one log, the state derived from it, and intents, the only way to change it."""
