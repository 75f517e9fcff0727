-- prelude: script tree content guard
-- Raise the floor below which chunks that no record names are orphans: to the last handle that had been given out
-- `orphan_age_s` ago, as samples tell. Answers the newest life when it has not been checked yet, else 0.

local SAMPLES = 24 -- in the age of an orphan: so much finer is the floor than the age

return run(function()
  check_epoch()
  write_even_when_full()
  local now, age_ms, key = now_ms(), request.orphan_age_s * 1000, P .. 'handle_samples'
  call('ZREMRANGEBYSCORE', key, '(' .. now, '+inf') -- the clock was set back
  local old = call('ZREVRANGEBYSCORE', key, now - age_ms, '-inf')
  for _, sample in ipairs(old) do
    if tonumber(sample) > number('orphan_floor') then call('SET', P .. 'orphan_floor', sample) end
    call('ZREM', key, sample)
  end
  local newest = tonumber(call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2] or 0)
  if newest <= now - age_ms / SAMPLES then
    call('ZADD', key, 'NX', now, string.format('%.0f', number('next_handle')))
  end
  local life = newest_life()
  return {'', life > number('lives_checked') and life or 0}
end)
