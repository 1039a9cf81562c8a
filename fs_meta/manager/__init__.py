"""The cluster manager: membership, routing, chains."""
