-- prelude: script tree content
-- Run on every new connection before anything else: note which Redis process this is. When it is not the one that was
-- here last (a restart, a failover, a restored copy), its newest writes may be missing, acknowledged as they were. So
-- that no id, handle or sequence is ever given out twice, all three counters leap far ahead, and `lives` keeps the gap
-- of handles that this metadata never gave out.

local LEAP = 2 ^ 28 -- far more than can be missing; 1e14 is reached after 250,000 restarts

local function counter(name) return tonumber(call('GET', P .. name) or 0) end

local function write(name, number) call('SET', P .. name, string.format('%.0f', number)) end

-- The last gap and the new one are one when no handle was given out between them.
local function note_gap(last, first)
  local newest = call('ZREVRANGE', P .. 'lives', 0, 0)[1]
  local gap_end, gap_start = string.match(newest or '', '(%d+):(%d+)')
  local from = last + 1
  if newest and tonumber(gap_start) == from then
    from = tonumber(gap_end)
    call('ZREM', P .. 'lives', newest)
  end
  call('ZADD', P .. 'lives', first, string.format('%.0f:%.0f', from, first))
end

return run(function()
  local process = string.match(call('INFO', 'server'), 'run_id:(%x+)')
  local known = call('GET', P .. 'life')
  if known == process then return {'', 0} end
  write_even_when_full()
  call('SET', P .. 'life', process)
  if not known then return {'', 0} end
  local leap = LEAP + request.random % LEAP
  local last = counter('next_handle')
  local first = math.ceil((last + leap) / BUCKET_CHUNKS) * BUCKET_CHUNKS
  note_gap(last, first)
  write('next_handle', first - 1)
  write('next_id', counter('next_id') + leap)
  write('seq', counter('seq') + leap)
  return {'', 1}
end)
