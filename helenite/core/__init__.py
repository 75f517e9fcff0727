"""What all parts share: values, errors, codecs; no part of the cluster."""
