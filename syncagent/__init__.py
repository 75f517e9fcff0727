"""The sync agent: keeps a local folder and a folder in the cluster equal."""
