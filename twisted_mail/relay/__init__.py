"""Mail that leaves: from the outbound queue to other servers."""
