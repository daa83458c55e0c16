-- name: look(kinds, most)^
-- What the tiles show, at one moment: of each kind of incident how many are open, and of what waits or was given up how
-- many, each counted up to `most`, and since when; with the moment's position: the transactions that it includes, and
-- the last usage event of each shard. One statement, so that all of it belongs together.
WITH counted (figure, number, since) AS (
    SELECT k.kind, count(i.opened_at), min(i.opened_at)
    FROM unnest(:kinds::text[]) AS k (kind)
    LEFT JOIN LATERAL (
        SELECT opened_at FROM incident WHERE kind = k.kind AND closed_at IS NULL ORDER BY id LIMIT :most
    ) AS i ON true
    GROUP BY k.kind
    UNION ALL
    SELECT 'open', count(*), min(opened_at) FROM (
        SELECT opened_at FROM incident WHERE closed_at IS NULL ORDER BY id LIMIT :most
    ) AS every
    UNION ALL
    SELECT 'unacknowledged', count(*), min(opened_at) FROM (
        SELECT opened_at FROM incident WHERE closed_at IS NULL AND acknowledged_at IS NULL ORDER BY id LIMIT :most
    ) AS unseen
    UNION ALL
    SELECT 'stripe_' || s.state, count(w.received_at), min(w.received_at)
    FROM (VALUES ('waiting'), ('dead')) AS s (state)
    LEFT JOIN LATERAL (
        SELECT received_at FROM webhook_event WHERE coalesce(outcome, 'waiting') = s.state
        ORDER BY received_at, id LIMIT :most
    ) AS w ON true
    GROUP BY s.state
    UNION ALL
    SELECT 'notifications_' || s.state, count(n.created_at), min(n.created_at)
    FROM (VALUES ('pending'), ('given_up')) AS s (state)
    LEFT JOIN LATERAL (
        SELECT created_at FROM notification WHERE coalesce(outcome, 'pending') = s.state ORDER BY id LIMIT :most
    ) AS n ON true
    GROUP BY s.state
    UNION ALL
    SELECT 'clerk_waiting', count(*), NULL FROM (SELECT FROM mirror_look WHERE asked > looked LIMIT :most) AS asked
    UNION ALL
    SELECT 'overage_given_up', count(*), min(given_up_at) FROM (
        SELECT given_up_at FROM overage_window WHERE sent_at IS NULL AND given_up_at IS NOT NULL LIMIT :most
    ) AS refused
)
SELECT statement_timestamp() AS at, pg_current_snapshot()::text AS snapshot,
    (
        SELECT coalesce(jsonb_object_agg(shard, stream_ms || '-' || stream_seq ORDER BY shard), '{}') FROM usage_watermark
    ) AS watermarks,
    (SELECT jsonb_object_agg(figure, jsonb_build_array(number, extract(epoch FROM since))) FROM counted) AS figures;
