-- prelude: script tree locks content guard
-- Give a file its content: create it or swap its record. Chunks are fresh (written for this commit) or shared with the
-- very revision that an EXACT condition demands, of the file or of a source, so that no record can name a chunk that is
-- being freed.

-- What was allocated long ago may have been deleted as orphans; what a lost life of Redis allocated may be taken for
-- proof of that, and no scan of the table would find it.
local function check_age(handles)
  local lowest = math.huge
  for _, handle in ipairs(handles) do lowest = math.min(lowest, handle) end
  if lowest < 1 then fail('invalid_request', 'chunk ' .. lowest .. ' was never allocated') end
  if lowest <= number('orphan_floor') then
    fail('upload_expired', 'the upload took longer than unfinished uploads are kept; send it again')
  end
  if #handles == 0 or not gap_behind(lowest) then return end
  for _, handle in ipairs(handles) do
    if handle <= number('next_handle') and not was_given_out(handle) then
      fail('upload_expired', 'the metadata store was replaced during the upload; send it again')
    end
  end
end

-- The fresh chunks: handle -> packed replicas.
local function check_fresh()
  local fresh, handles, highest = {}, {}, 0
  for i, chunk in ipairs(request.fresh) do
    fresh[chunk[1]], handles[i] = chunk[2], chunk[1]
    highest = math.max(highest, chunk[1])
  end
  check_age(handles)
  for i, held in ipairs(read_replicas(handles)) do
    if held ~= '' then fail('invalid_request', 'chunk ' .. handles[i] .. ' has been committed before') end
  end
  if highest > number('next_handle') then
    fail('invalid_request', 'chunk ' .. highest .. ' was never allocated')
  end
  return fresh
end

-- The record of the other file whose chunks may be shared.
local function source_record()
  local place = resolve(request.source)
  check_condition(place, request.source_condition)
  if is_directory(place.record) then fail('wrong_kind', place.path .. ' is a directory') end
  return place.record
end

local function shareable(old)
  local held = {}
  if old and request.condition.expect == 'exact' then count_extents(held, read_extents(old), 1) end
  if request.source then count_extents(held, read_extents(source_record()), 1) end
  return held
end

local function check_shared(counts, fresh, old)
  local held
  for handle in pairs(counts) do
    if not fresh[handle] then
      held = held or shareable(old)
      if not held[handle] then
        fail('invalid_request', 'chunk ' .. handle .. ' is neither fresh nor of the revision that the commit demands')
      end
    end
  end
end

-- Enter fresh chunks into the table and count the further extents of shared ones.
local function write_chunks(counts, fresh, now)
  local buckets = {}
  for handle, replicas in pairs(fresh) do
    if counts[handle] then
      local bucket = bucket_of(handle)
      buckets[bucket] = buckets[bucket] or {}
      table.insert(buckets[bucket], handle % BUCKET_CHUNKS)
      table.insert(buckets[bucket], replicas)
      counts[handle] = counts[handle] > 1 and counts[handle] - 1 or nil -- one extent needs no count
    end
  end
  for bucket, chunks in pairs(buckets) do
    in_groups(chunks, function(...) call('HSET', bucket_key(bucket), ...) end)
  end
  change_references(counts, now)
end

return run_once(function()
  local now = now_ms()
  local place = resolve(request.names)
  local old = place.record
  parent_must_exist(place)
  check_condition(place, request.condition)
  if old and is_directory(old) then fail('wrong_kind', place.path .. ' is a directory') end
  if old then require_token(id_of(old), place.ids, now) else require_parent_token(place, now) end
  local counts, fresh = {}, check_fresh()
  count_extents(counts, request.extents, 1)
  check_shared(counts, fresh, old)

  local sequence = next_sequence()
  local id = old and id_of(old) or call('INCR', P .. 'next_id')
  write_chunks(counts, fresh, now)
  local modified = request.modified_at_ms > 0 and request.modified_at_ms or now
  local created = old and created_of(old) or now
  local record = new_file(id, sequence, request.size_bytes, modified, created, request.extents, request.sha256)
  if old and has_flag(old, PROPERTIES) then record = with_flag(record, PROPERTIES, true) end
  put_record(place, record)
  if old then queue_content(old) else touch_parent(place, now) end
  add_totals(place.ids, sequence, old and 0 or 1, 0, request.size_bytes - (old and size_of(old) or 0))
  announce(sequence, 'commit', place, '', record, place.ids)
  return outcome(place, record, not old, sequence)
end)
