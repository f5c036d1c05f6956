"""What both ends of a queue are made of: spools, leases that are held, work with a time limit."""
