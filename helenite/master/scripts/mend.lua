-- prelude: script tree content guard replicas
-- Carry out one batch of what an audit of a snapshot proposed (master/audit.py). The namespace may have changed since the
-- snapshot: counts are therefore corrected by differences, which every change in between has left alone, each batch
-- exactly once, and only while nobody else has mended these books since the snapshot. Answers how many actions changed
-- something.

local LOST_AND_FOUND = 'lost+found'

local mend = {}

-- A count that was too low may have made the chunk look unused since the snapshot: then it is kept.
function mend.references(action)
  local is_freed = call('ZSCORE', P .. 'freed', action.handle)
  local count = tonumber(call('HGET', P .. 'r', action.handle) or is_freed and 0 or 1) + action.delta
  if count > 1 then
    call('HSET', P .. 'r', action.handle, count)
  else
    call('HDEL', P .. 'r', action.handle)
  end
  if count >= 1 and is_freed then call('ZREM', P .. 'freed', action.handle) end
  return count >= 1
end

function mend.uncount(action) return call('HDEL', P .. 'r', action.handle) == 1 end

-- No record named it at the snapshot, so none can name it now: only its own records could be copied.
function mend.free(action)
  if not may_delete() then return false end
  local is_known = call('HEXISTS', bucket_key(bucket_of(action.handle)), action.handle % BUCKET_CHUNKS) == 1
  return is_known and call('ZADD', P .. 'freed', 'NX', now_ms(), action.handle) == 1
end

-- Without replicas: its servers are told to look, since one may have been deleting it.
function mend.enter(action)
  local key, field = bucket_key(bucket_of(action.handle)), action.handle % BUCKET_CHUNKS
  for _, server in ipairs(action.servers) do call('SREM', unused_key(server), action.handle) end
  return call('HSETNX', key, field, '') == 1
end

function mend.totals(action)
  local sequence = read_totals(action.id)
  add_totals({action.id}, sequence, unpack(action.delta))
  return true
end

function mend.counter(action)
  if tonumber(call('GET', P .. action.name) or 0) >= action.least then return false end
  call('SET', P .. action.name, string.format('%.0f', action.least))
  return true
end

function mend.stray(action) return call('UNLINK', P .. action.key) == 1 end

-- Who has not read that far cannot know what changed, and must scan.
function mend.unfeed(action)
  return call('XTRIM', P .. 'feed', 'MINID', string.format('%.0f-0', action.sequence + 1)) > 0
end

local function lost_and_found(now)
  local record = call('HGET', P .. 'd:1', LOST_AND_FOUND)
  if record then return is_directory(record) and id_of(record) end
  local sequence, id = next_sequence(), call('INCR', P .. 'next_id')
  local made = new_directory(id, sequence, now, now)
  local place = resolve({LOST_AND_FOUND})
  start_totals(id, sequence)
  put_record(place, made)
  add_totals(place.ids, sequence, 0, 1, 0)
  announce(sequence, 'make_directory', place, '', made, place.ids)
  return id
end

function mend.attach(action)
  local now = now_ms()
  local home = lost_and_found(now)
  local place = resolve({LOST_AND_FOUND, tostring(action.id)})
  if not home or place.record or call('EXISTS', P .. 'd:' .. action.id) == 0 then return false end
  local sequence = next_sequence()
  local record = new_directory(action.id, sequence, now, now)
  local _, files, directories, bytes = read_totals(action.id)
  add_totals({action.id}, sequence, 0, 0, 0)
  put_record(place, record)
  add_totals(place.ids, sequence, files, directories + 1, bytes)
  announce(sequence, 'make_directory', place, '', record, place.ids)
  return true
end

-- Each batch counts; a snapshot tells how many had been carried out when it was taken.
local function admit()
  local kept = call('GET', P .. 'mended')
  local last = kept and cmsgpack.unpack(kept) or {id = '', batch = 0, mends = 0}
  local is_next = last.id == request.id and last.batch + 1 == request.batch
  local is_first = request.batch == 1 and last.mends == request.mends
  if newest_life() ~= request.life or not (is_next or is_first) then
    fail('precondition_failed', 'the books were mended by another repair, or Redis was replaced, since they were audited; '
      .. 'run fsck again')
  end
  call('SET', P .. 'mended', cmsgpack.pack({id = request.id, batch = request.batch, mends = last.mends + 1}))
end

return run_once(function()
  check_epoch()
  admit()
  local done = 0
  for _, action in ipairs(request.actions) do
    if mend[action.kind](action) then done = done + 1 end
  end
  return {'', done}
end)
