"""A private authority and the certificates that it issues: made, renewed and looked at. What they are for is said in
``transport/security.py``."""
