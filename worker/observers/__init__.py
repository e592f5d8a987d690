"""What watches a worker: each takes the events of worker.events, and changes nothing."""
