"""The fleet's control room: who is there, which drafters draft for which sessions, and how far each speculates."""
