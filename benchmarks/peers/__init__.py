"""Other Postgres queues under the same work. Each runs in an environment of its own."""
