"""How a token is drawn from logits: settings and rules, shared noise, warpers, the sampler."""
