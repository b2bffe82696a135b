"""Which draft tokens are accepted: a pure function for each rule."""
