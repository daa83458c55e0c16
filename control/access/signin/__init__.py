"""How a person signs in: by an OpenID provider or a one-time link; and the sessions that follow."""
