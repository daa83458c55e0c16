"""What usage and money say over time: figures for people, which no request waits for."""
