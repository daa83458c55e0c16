from tests.control.plane import admin, catalogue, clock, context, entitled, nobody, redis, settings, token_of

__all__ = ["admin", "catalogue", "clock", "context", "entitled", "nobody", "redis", "settings", "token_of"]
