"""The client library: FileSystem and what it stands on."""
