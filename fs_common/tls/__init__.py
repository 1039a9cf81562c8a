"""TLS of the three planes: what a certificate says, the files it lies in, how a cluster's are made."""
