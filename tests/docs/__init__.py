"""The pages, examples and pictures of ``docs/`` and the ``README.md``: what they show is run."""
