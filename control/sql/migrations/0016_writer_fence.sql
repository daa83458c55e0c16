-- Each recovery of Redis raises the fence of every shard, under the lock of its row. A writer reads it with its
-- position, before it reads the stream, and compares it in its transaction: what was read before a recovery, which may
-- be put back under other ids, is not written after it.
--
-- A writer of an earlier release does not compare it, and a recovery of an earlier release does not raise it: while
-- one of them runs beside this release, a batch can double as it could before. Both leave the column as it is.

ALTER TABLE usage_watermark ADD COLUMN fence bigint NOT NULL DEFAULT 0;
