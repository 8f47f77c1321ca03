"""Tasks in threads of this process, with the semantics of ``CondaEnvExecutor``."""
