-- prelude: script
-- Changes after a sequence. Every sequence has exactly one element, except those that were leapt over when another Redis
-- process took over (begin_life.lua). So what lies before the oldest was trimmed, and whoever has read up to a sequence
-- inside a gap, or after the last, has seen changes that were lost: it is another copy that leapt, perhaps less far.

local function is_lost(sequence)
  local gap = call('ZRANGEBYSCORE', P .. 'feed_gaps', '(' .. sequence, '+inf', 'LIMIT', 0, 1)[1]
  return gap and tonumber(string.match(gap, '^%d+')) < sequence
end

return run(function()
  local last = tonumber(call('GET', P .. 'seq') or 0)
  local oldest = call('XRANGE', P .. 'feed', '-', '+', 'COUNT', 1)[1]
  local first = oldest and tonumber(string.match(oldest[1], '^%d+')) or last + 1
  if request.after > last or is_lost(request.after) then
    fail('history_lost', 'changes up to ' .. request.after .. ' were lost with the Redis that held them')
  end
  if request.after < first - 1 then
    fail('sequence_expired', 'the feed holds sequences ' .. first .. ' to ' .. last .. ', not what follows ' .. request.after)
  end
  return {'', last, call('XRANGE', P .. 'feed', (request.after + 1) .. '-0', '+', 'COUNT', request.limit)}
end)
