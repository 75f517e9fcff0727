"""The master: namespace and chunk table on Redis, served over gRPC."""
