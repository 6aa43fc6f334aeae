"""The request router: the plan's shares by request size, over pools that balance among their own engines."""
