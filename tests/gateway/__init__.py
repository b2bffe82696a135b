"""The HTTP front door: real servers and the clients that people use."""
