"""The loop tracer: from an API that a program calls again and again, back to the loop that calls it."""
