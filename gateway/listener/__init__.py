"""A connection is accepted: it shows where it comes from (PROXY protocol) and is secured (TLS), then it is read.

A listener on TCP that asks for neither does without this room: its connections are the loop's own server's."""
