"""The pages for people: sign-in, who one is, sessions, sign-out."""
