"""A real cluster: binaries by version, launcher and members, flags of every release, TLS, the raw client and the recorder."""
