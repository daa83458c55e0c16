"""A code activates a site: the site gets access tokens of minutes, and a refresh token that is replaced at each use."""
