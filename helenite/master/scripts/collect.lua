-- prelude: script tree locks content guard
-- One bounded step of garbage collection, each part atomic and started from what Redis holds, so that a crash anywhere
-- costs nothing. Answers how many things were done; 0 means that there is nothing to do now. While the guard does not
-- allow to delete, only locks expire.

local STEP = 200 -- things done by one part of a step; keeps a step below about 10 ms
local STEP_EXTENTS = 4000 -- and extents of one large file
local STAGING_S = 600 -- a copy that has made no progress for this long has lost its master

-- Release the content of queued records; a large file goes piece by piece, from its end.
local function release_content(now)
  local done, extents_left, counts = 0, STEP_EXTENTS, {}
  while done < STEP and extents_left > 0 do
    local record = call('LINDEX', P .. 'gc', 0)
    if not record then break end
    local extents = read_extents(record)
    local first = math.max(1, #extents - extents_left * EXTENT_BYTES + 1)
    count_extents(counts, sub(extents, first), -1)
    extents_left = extents_left - (#extents - first + 1) / EXTENT_BYTES
    if first > 1 then
      call('SET', overflow_key(id_of(record), revision_of(record)), sub(extents, 1, first - 1))
    else
      if has_flag(record, OVERFLOW) then call('DEL', overflow_key(id_of(record), revision_of(record))) end
      call('LPOP', P .. 'gc')
    end
    done = done + 1
  end
  change_references(counts, now)
  return done
end

-- Take detached directories apart.
local function walk_directories()
  local done = 0
  while done < STEP do
    local id = call('LINDEX', P .. 'gc_dirs', 0)
    if not id then break end
    local key = P .. 'd:' .. id
    -- From where the last step stopped: a hash keeps its empty buckets, and a scan from 0 would only look at those.
    local scanned = call('HSCAN', key, call('GET', P .. 'gc_cursor') or 0, 'COUNT', STEP)
    local page = scanned[2]
    call('SET', P .. 'gc_cursor', scanned[1])
    for i = 1, #page, 2 do
      -- The scan of a hash that is being resized may bring a name twice.
      if call('HDEL', key, page[i]) == 1 then discard(page[i + 1]) end
    end
    done = done + 1 + #page / 2
    if call('EXISTS', key) == 0 then
      call('HDEL', P .. 'q', id)
      call('LPOP', P .. 'gc_dirs')
      call('DEL', P .. 'gc_cursor')
    end
  end
  return done
end

local function expire_trash(now)
  local floor = tonumber(call('GET', P .. 'trash_floor') or 0)
  local done = 0
  for _, id in ipairs(call('ZRANGE', P .. 'trash_at', 0, STEP - 1)) do
    local item = cmsgpack.unpack(call('HGET', P .. 'trash', id))
    if tonumber(id) > floor and item.deleted_at_ms > now - request.trash_s * 1000 then break end
    forget_trashed(id)
    discard(item.record)
    done = done + 1
  end
  return done
end

-- Chunks whose grace has passed leave the table; their replicas are deleted by the chunkservers.
local function free_chunks(now)
  local handles = call('ZRANGEBYSCORE', P .. 'freed', 0, now - request.grace_s * 1000, 'LIMIT', 0, STEP)
  for _, handle in ipairs(handles) do
    local key, field = bucket_key(bucket_of(tonumber(handle))), tonumber(handle) % BUCKET_CHUNKS
    local replicas = call('HGET', key, field) or ''
    for at = 1, #replicas, 2 do
      call('SADD', P .. 'del:' .. struct.unpack('>I2', replicas, at), handle)
    end
    call('HDEL', key, field)
    call('ZREM', P .. 'freed', handle)
  end
  return #handles
end

local function drop_stale_copies(now)
  local done = 0
  local staged = call('HGETALL', P .. 'staging')
  for i = 1, #staged, 2 do
    if tonumber(staged[i + 1]) < now - STAGING_S * 1000 then
      call('HDEL', P .. 'staging', staged[i])
      call('RPUSH', P .. 'gc_dirs', staged[i])
      done = done + 1
    end
  end
  return done
end

local function sweep_locks(now)
  local scanned = call('HSCAN', P .. 'locks', request.lock_cursor, 'COUNT', STEP)
  local done = 0
  for i = 1, #scanned[2], 2 do
    if cmsgpack.unpack(scanned[2][i + 1]).expires_at_ms <= now then
      drop_lock(scanned[2][i])
      done = done + 1
    end
  end
  return done, scanned[1]
end

return run(function()
  check_epoch()
  local now = now_ms()
  write_even_when_full()
  local swept, lock_cursor = sweep_locks(now)
  if not may_delete() then return {'', swept, lock_cursor} end
  local done = drop_stale_copies(now) + expire_trash(now) + walk_directories() + release_content(now) + free_chunks(now)
  return {'', done + swept, lock_cursor}
end)
