"""The target: an engine, sessions, and the gRPC server that clients and drafters dial."""
