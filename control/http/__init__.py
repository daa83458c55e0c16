"""What every request of the control API goes through: its connection, its limits, its caller, its refusals."""
