"""What every request of the control API goes through: its correlation id, its limits, its refusals."""
