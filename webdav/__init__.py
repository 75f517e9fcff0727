"""The WebDAV gateway: the client that people mount."""
