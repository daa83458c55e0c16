"""The way in and out: sign-in, who one is, where one is signed in. The portal's way in is made of the same."""
