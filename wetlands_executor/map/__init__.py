"""``map`` without a Task per call: jobs, whose calls wait as one entry and travel in chunks."""
