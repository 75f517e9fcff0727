-- prelude: script tree content
-- A page of the chunk table from bucket `cursor` on, without the chunks that are being freed. Answers the next cursor
-- (0: that was all) and handle, replicas, ...

local CHUNKS_MAX = 4096 -- in one page; about 5 ms
local BUCKETS_MAX = 8000 -- looked at for one page, most of them perhaps empty

local function add_bucket(found, bucket)
  local chunks = call('HGETALL', P .. 'c:' .. bucket)
  local has_freed = call('EXISTS', P .. 'freed') == 1
  for i = 1, #chunks, 2 do
    local handle = bucket * BUCKET_CHUNKS + tonumber(chunks[i])
    if not (has_freed and call('ZSCORE', P .. 'freed', handle)) then
      found[#found + 1] = handle
      found[#found + 1] = chunks[i + 1]
    end
  end
end

-- The first buckets of the next gap of handles that were never given out (see begin_life.lua) and behind it.
local function next_gap(bucket, last)
  local gap = call('ZRANGEBYSCORE', P .. 'lives', '(' .. bucket * BUCKET_CHUNKS, '+inf', 'LIMIT', 0, 1)[1]
  if not gap then return last + 1, last + 1 end
  local from, to = string.match(gap, '(%d+):(%d+)')
  return bucket_of(tonumber(from)) + 1, bucket_of(tonumber(to))
end

return run(function()
  local last = bucket_of(tonumber(call('GET', P .. 'next_handle') or 0))
  local bucket, found = request.cursor, {}
  local gap, behind = next_gap(bucket, last)
  for _ = 1, BUCKETS_MAX do
    if bucket >= gap then
      bucket = math.max(bucket, behind)
      gap, behind = next_gap(bucket, last)
    end
    if bucket > last then return {'', 0, found} end
    add_bucket(found, bucket)
    bucket = bucket + 1
    if #found >= 2 * CHUNKS_MAX then break end
  end
  return {'', bucket <= last and bucket or 0, found}
end)
