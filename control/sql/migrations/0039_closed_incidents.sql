-- Closed incidents are dropped after a while.

CREATE INDEX incident_closed ON incident (closed_at) WHERE closed_at IS NOT NULL;
