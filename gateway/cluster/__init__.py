"""A Cluster as one link: a link to each of its primaries, and takes go to the one that holds their shard."""
