"""`dragoman bench`: how fast an endpoint answers, under vLLM's names, and what speculation does for it.

``measurement.py`` is one request, ``figures.py`` and ``comparison.py`` are what follows from many: pure, and what the
project's own benchmarks compute their figures with. ``openai_endpoint.py`` and ``grpc_endpoint.py`` ask.
"""
