"""The workers of one environment: decisions (``state``), the thread that carries them out (``pool``), processes, pipes and payloads."""
