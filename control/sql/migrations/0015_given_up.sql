-- Overage that Stripe refuses, and would refuse again: not sent any more, until an admin asks for it.

ALTER TABLE overage_window ADD COLUMN given_up_at timestamptz;
