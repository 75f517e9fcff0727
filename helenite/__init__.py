"""Helenite: the disks of a few machines as one network drive."""
