-- prelude: script tree content guard
-- Run on every new connection before anything else: note which Redis process this is. When it is not the one that was
-- here last (a restart, a failover, a restored copy), its newest writes may be missing, acknowledged as they were. So
-- that no id, handle or sequence is ever given out twice, all three counters leap far ahead, and `lives` keeps the gap
-- of handles that this metadata never gave out, `feed_gaps` the one of sequences: who has read the feed up to there has
-- seen changes that are missing now, and must scan again.
--
-- Deletions of surplus replicas were ordered by a table that may be newer or older than this one: they are forgotten, and
-- ordered again if reports confirm that the replicas are surplus. Chunks that had left the table never come back.

local LEAP = 2 ^ 28 -- far more than can be missing; 1e14 is reached after 250,000 restarts

local FEED_GAPS_MAX = 1000 -- years of restarts; what the feed holds of before the oldest goes with it

local function write(name, number) call('SET', P .. name, string.format('%.0f', number)) end

local function forget_surplus()
  for _, server in ipairs(call('HKEYS', P .. 'servers')) do call('UNLINK', P .. 'surplus:' .. server) end
end

local function note_feed_gap(last, first)
  call('ZADD', P .. 'feed_gaps', first, string.format('%.0f:%.0f', last, first))
  local surplus = call('ZRANGE', P .. 'feed_gaps', 0, -FEED_GAPS_MAX - 1, 'WITHSCORES')
  if #surplus > 0 then
    call('XTRIM', P .. 'feed', 'MINID', string.format('%.0f-0', surplus[#surplus]))
    call('ZREMRANGEBYRANK', P .. 'feed_gaps', 0, -FEED_GAPS_MAX - 1)
  end
end

return run(function()
  local process = own_run_id()
  local known = call('GET', P .. 'life')
  if known == process then return {'', 0} end
  write_even_when_full()
  call('SET', P .. 'life', process)
  if not known then return {'', 0} end
  forget_surplus()
  local leap = LEAP + request.random % LEAP
  local last = number('next_handle')
  local first = math.ceil((last + leap) / BUCKET_CHUNKS) * BUCKET_CHUNKS
  note_gap(last, first)
  write('next_handle', first - 1)
  write('next_id', number('next_id') + leap)
  note_feed_gap(number('seq'), number('seq') + leap)
  write('seq', number('seq') + leap)
  return {'', 1}
end)
