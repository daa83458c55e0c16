"""What goes with a release: what it is made of, under which licences, and what is known to be wrong with it."""
