"""Text as bytes: what the tokens of a vocabulary mean, retokenisation, what a client sees of a text, and its digest."""
