"""The target `kubernetes`: a plan's objects in a cluster, which is itself their state."""
