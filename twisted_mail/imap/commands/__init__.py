"""The commands: one module per family, each with its values, how they are read, and `COMMANDS`."""
