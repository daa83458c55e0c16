"""Hours of load with random faults: whether anything is lost, given away or leaked."""
