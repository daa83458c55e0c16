-- name: tables()
-- The tables of ours with the columns that hold something of their own, and how many rows the planner believes that they
-- have; the partitioned ones as a whole.
SELECT c.relname::text AS name,
    ARRAY(
        SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
        ORDER BY a.attnum
    ) AS columns,
    CASE c.relkind
        WHEN 'r' THEN greatest(c.reltuples, 0)::bigint
        ELSE (
            SELECT coalesce(sum(greatest(part.reltuples, 0)), 0)::bigint
            FROM pg_partition_tree(c.oid) t JOIN pg_class part ON part.oid = t.relid WHERE t.isleaf
        )
    END AS rows_about
FROM pg_class c
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relname <> 'alembic_version'
ORDER BY c.relname;

-- name: references_between()
-- Which table refers to which other one, so that it is filled after it.
SELECT DISTINCT child.relname::text AS child, parent.relname::text AS parent
FROM pg_constraint f
JOIN pg_class child ON child.oid = f.conrelid
JOIN pg_class parent ON parent.oid = f.confrelid
WHERE f.contype = 'f' AND f.conparentid = 0 AND f.connamespace = current_schema()::regnamespace
    AND child.oid <> parent.oid;

-- name: partitions()
-- The days that a partitioned table has; the default partition is there anyway.
SELECT parent.relname::text AS parent, to_date(right(part.relname, 8), 'YYYYMMDD') AS day
FROM pg_inherits i
JOIN pg_class parent ON parent.oid = i.inhparent
JOIN pg_class part ON part.oid = i.inhrelid
WHERE parent.relnamespace = current_schema()::regnamespace AND part.relname ~ '_[0-9]{8}$' AND parent.relkind = 'p'
ORDER BY 1, 2;

-- name: sequences()
-- How far each sequence is. NULL: nothing was drawn from it.
SELECT sequencename::text AS name, last_value FROM pg_sequences WHERE schemaname = current_schema() ORDER BY 1;

-- name: set_sequence(name, last_value)$
-- The next number drawn comes after this one.
SELECT setval(quote_ident(:name::text)::regclass, :last_value::bigint);

-- name: has_tables()$
-- Whether anything is in the schema.
SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v'));
