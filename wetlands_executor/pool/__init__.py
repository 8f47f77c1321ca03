"""The workers of one environment.

Decisions (``state``), the thread that carries them out (``pool``), processes, pipes and payloads.
"""
