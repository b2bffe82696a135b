"""The fleet on a Ray cluster: places, starts, restarts and stops the actors; all else is the actors' own business.

Ray is an extra. It is imported when a cluster is dialled, not before.
"""
