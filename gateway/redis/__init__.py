"""The one connection to Redis is made, made again, and used while its server is the one to believe."""
