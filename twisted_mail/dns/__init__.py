"""Questions to the domain name system: one resolver for a process, and what it answers."""
