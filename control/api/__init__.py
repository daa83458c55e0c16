"""The endpoints: each module reads a request, has the features do the work, and shows what came of it."""
