-- period_at: the published period that contains `now_s`, or nothing. A missing period is published as 0, 0.
local function period_at(now_s, start1, end1, start2, end2)
  if now_s >= start1 and now_s < end1 then return start1, end1 end
  if now_s >= start2 and now_s < end2 then return start2, end2 end
end
