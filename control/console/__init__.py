"""The pages for people of the vendor. Each shows what an endpoint of the control API returns, and nothing else."""
