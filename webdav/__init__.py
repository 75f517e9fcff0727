"""The WebDAV gateway: how people mount the drive."""
