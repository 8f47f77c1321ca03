"""``python -m wetlands_executor doctor ENV``.

What an environment is, how well it works with this process, and what to do about the rest.

``examine`` looks and measures, ``machine`` reads what the operating system offers, ``advice``
judges, ``show`` prints, ``probe`` is the part that runs in the environment. Public API and the
launch of one worker; nothing is changed anywhere. Entered by the main thread only.
"""
