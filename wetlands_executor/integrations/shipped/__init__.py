"""Files that are sent to workers, which put this folder on ``sys.path``: it holds nothing else."""
