-- name: insert(id, name, fields, filter, reason, asked_by, correlation_id, at)!
-- An action for many organizations.
INSERT INTO bulk_action (id, name, fields, filter, reason, asked_by, correlation_id, asked_at)
VALUES (:id, :name, :fields, :filter, :reason, :asked_by, :correlation_id, :at);

-- name: insert_items(id, orgs)!
-- The organizations that it is for.
INSERT INTO bulk_action_item (bulk, org, state) SELECT :id, org, 'waiting' FROM unnest(:orgs::text[]) AS org;

-- name: find(id)^
-- One of them, and how far it is.
SELECT b.id, b.name, b.fields, b.filter, b.reason, b.asked_by, b.correlation_id, b.asked_at, b.stopped_at,
    count(*) AS total,
    count(*) FILTER (WHERE i.state IN ('waiting', 'under_way')) AS waiting,
    count(*) FILTER (WHERE i.state = 'done') AS done,
    count(*) FILTER (WHERE i.state = 'asked') AS asked,
    count(*) FILTER (WHERE i.state = 'refused') AS refused,
    count(*) FILTER (WHERE i.state = 'stopped') AS stopped
FROM bulk_action b JOIN bulk_action_item i ON i.bulk = b.id
WHERE b.id = :id
GROUP BY b.id;

-- name: newest(limit_rows)
-- The newest of them.
SELECT id FROM bulk_action ORDER BY id DESC LIMIT :limit_rows;

-- name: refused(id, limit_rows)
-- Organizations to which it was not done, and why.
SELECT org, note FROM bulk_action_item WHERE bulk = :id AND state = 'refused' ORDER BY org LIMIT :limit_rows;

-- name: claim(at, until)^
-- The next organization that something is to be done to, for one process until then.
UPDATE bulk_action_item i SET state = 'under_way', claimed_until = :until
FROM (
    SELECT bulk, org FROM bulk_action_item
    WHERE state = 'waiting' OR (state = 'under_way' AND claimed_until <= :at)
    ORDER BY bulk, org
    LIMIT 1
    FOR UPDATE SKIP LOCKED
) AS next, bulk_action b
WHERE i.bulk = next.bulk AND i.org = next.org AND b.id = i.bulk
RETURNING i.bulk, i.org, i.token, b.name, b.fields, b.reason, b.asked_by, b.correlation_id;

-- name: set_token(bulk, org, token)!
-- The preview by which it is done from now on.
UPDATE bulk_action_item SET token = :token WHERE bulk = :bulk AND org = :org;

-- name: end_item(bulk, org, state, note)!
-- What came of it.
UPDATE bulk_action_item SET state = :state, note = :note, claimed_until = NULL WHERE bulk = :bulk AND org = :org;

-- name: stop(id, at)$
-- What is not begun is not done; the id where there is such an action.
WITH left_out AS (
    UPDATE bulk_action_item SET state = 'stopped' WHERE bulk = :id AND state = 'waiting'
)
UPDATE bulk_action SET stopped_at = coalesce(stopped_at, :at) WHERE id = :id RETURNING id;
