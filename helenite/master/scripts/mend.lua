-- prelude: script tree content
-- Carry out what an audit of a snapshot proposed (master/audit.py). The namespace may have changed since the snapshot:
-- counts are therefore corrected by differences, which every change in between has left alone. A call that is repeated
-- corrects twice, and not all else is looked at again (DESIGN.md, Known faults). Answers how many actions changed
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
  local is_known = call('HEXISTS', bucket_key(bucket_of(action.handle)), action.handle % BUCKET_CHUNKS) == 1
  return is_known and call('ZADD', P .. 'freed', 'NX', now_ms(), action.handle) == 1
end

function mend.enter(action)
  local key, field = bucket_key(bucket_of(action.handle)), action.handle % BUCKET_CHUNKS
  for at = 1, #action.servers, 2 do
    call('SREM', P .. 'del:' .. struct.unpack('>I2', action.servers, at), action.handle)
  end
  return call('HSETNX', key, field, action.servers) == 1
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

function mend.unfeed(action) return call('XDEL', P .. 'feed', action.id) == 1 end

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

return run(function()
  check_epoch()
  local done = 0
  for _, action in ipairs(request.actions) do
    if mend[action.kind](action) then done = done + 1 end
  end
  return {'', done}
end)
