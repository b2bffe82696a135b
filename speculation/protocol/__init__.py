"""What travels between services, as plain checked values: requests, spans, verdicts, plans, proposals."""
