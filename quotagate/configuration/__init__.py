"""Configuration as code: what the control API holds as files, the difference between both, and making it none."""
