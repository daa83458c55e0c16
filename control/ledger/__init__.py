"""Redis as the control plane reads it: its event streams, its clock, and whether what it holds is vouched for."""
