"""The HTTP front door: OpenAI's API in front of a verifier or a fleet."""
