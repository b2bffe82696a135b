"""The wire: codec between messages and plain values, channels, servers, status codes, and the link to a coordinator."""
