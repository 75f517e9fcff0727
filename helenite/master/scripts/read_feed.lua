-- prelude: script
-- Changes after a sequence. Every sequence has exactly one element, so a gap before the oldest means it was trimmed.

return run(function()
  local last = tonumber(call('GET', P .. 'seq') or 0)
  local oldest = call('XRANGE', P .. 'feed', '-', '+', 'COUNT', 1)[1]
  local first = oldest and tonumber(string.match(oldest[1], '^%d+')) or last + 1
  if request.after > last or request.after < first - 1 then
    fail('sequence_expired', 'the feed holds sequences ' .. first .. ' to ' .. last .. ', not what follows ' .. request.after)
  end
  return {'', last, call('XRANGE', P .. 'feed', (request.after + 1) .. '-0', '+', 'COUNT', request.limit)}
end)
