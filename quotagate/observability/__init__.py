"""`quotagate observability`: alerts, dashboards and the table of metrics, made of one file."""
