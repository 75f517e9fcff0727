"""The chunkserver: keeps replicas on disk, serves their bytes on the data port."""
