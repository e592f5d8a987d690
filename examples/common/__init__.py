"""What the examples share: the scaled clock, the API's server, the processes, the printed table."""
