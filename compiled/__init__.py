"""The modules on the way of each request, compiled by mypyc where that was done, and plain Python everywhere else."""
