-- The trace that an event of Stripe came in, and that of the change that waits to be published, as a traceparent (W3C Trace
-- Context): whoever goes on with the row goes on with the trace. NULL: nothing was recorded.
ALTER TABLE webhook_event ADD COLUMN traceparent text;
ALTER TABLE publication ADD COLUMN traceparent text;
