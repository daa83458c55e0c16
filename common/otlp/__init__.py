"""Traces, metrics and logs on their way to a collector: OTLP over HTTP, in threads of their own."""
