"""A small OpenID provider for tests and trials: discovery, code flow with PKCE, a login page, userinfo, logout."""
