"""Models, services and sessions that tests are made of."""
