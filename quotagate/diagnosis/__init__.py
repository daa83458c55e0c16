"""What `quotagate doctor` examines: what runs, and how it is set up."""
