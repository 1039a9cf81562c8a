"""Chain replication with apportioned queries: the pure core."""
