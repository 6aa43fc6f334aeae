"""From a plan to the objects of a target: pure functions, which neither reach a cluster nor hold a secret."""
