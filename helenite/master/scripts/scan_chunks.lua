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

return run(function()
  local last = math.floor(tonumber(call('GET', P .. 'next_handle') or 0) / BUCKET_CHUNKS)
  local found = {}
  for bucket = request.cursor, math.min(last, request.cursor + BUCKETS_MAX - 1) do
    add_bucket(found, bucket)
    if #found >= 2 * CHUNKS_MAX then return {'', bucket < last and bucket + 1 or 0, found} end
  end
  local next_bucket = request.cursor + BUCKETS_MAX
  return {'', next_bucket <= last and next_bucket or 0, found}
end)
