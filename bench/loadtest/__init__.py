"""Load by locust: who calls, what they send, how many come when, and what is said of it afterwards."""
