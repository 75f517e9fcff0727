"""The icon of the sync agent: a process of its own, which the agent lives without."""
