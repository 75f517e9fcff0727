-- Content: extents, reference counts, the chunk table, and what becomes of entries that are no longer wanted.
--
-- {s}:r counts the extents that name a chunk, in records of all kinds: live, in the trash, being copied, queued for
-- release. Absent means one, so that a chunk used once costs nothing. {s}:c:<handle / 128> holds a chunk's replicas.

local EXTENT_BYTES = 16
local INLINE_EXTENTS_MAX = 12 -- as in core/record.py; one less beside a digest
local BUCKET_CHUNKS = 128 -- Redis searches so small a hash from its start: fewer is faster, more is smaller
local WHOLE_BUCKET = 12 -- of so many chunks on, reading their whole bucket is faster
local GROUP = 1000 -- arguments of one command, of the 8,000 that Lua's stack has room for

local function overflow_key(id, revision) return P .. 'e:' .. id .. ':' .. revision end

local function read_extents(record)
  if not has_flag(record, OVERFLOW) then return inline_extents(record) end
  return call('GET', overflow_key(id_of(record), revision_of(record))) or ''
end

-- A record from its head and extents; those beyond the limit are written to a key of their own.
local function with_extents(head, extents)
  local most = has_flag(head, DIGEST) and INLINE_EXTENTS_MAX - 1 or INLINE_EXTENTS_MAX
  if #extents <= most * EXTENT_BYTES then return head .. extents end
  call('SET', overflow_key(id_of(head), revision_of(head)), extents)
  return with_flag(head, OVERFLOW, true)
end

-- The digest of its content beside a record that has none.
local function with_digest(record, digest)
  local head, extents = with_flag(head_of(record), DIGEST, true) .. digest, inline_extents(record)
  return with_extents(head, extents)
end

-- A file's record. `digest` is '' when it is not known.
local function new_file(id, revision, size, modified_at_ms, created_at_ms, extents, digest)
  local flags = digest ~= '' and DIGEST or 0
  local head = struct.pack('>BBI8I8I8I8I8', FILE, flags, id, revision, size, modified_at_ms, created_at_ms)
  return with_extents(head .. digest, extents)
end

local function bucket_key(bucket) return P .. 'c:' .. bucket end
local function bucket_of(handle) return math.floor(handle / BUCKET_CHUNKS) end

-- Call `act` with up to GROUP arguments of a list at a time.
local function in_groups(list, act)
  for first = 1, #list, GROUP do act(unpack(list, first, math.min(first + GROUP - 1, #list))) end
end

local function append_handles(handles, extents, count)
  for at = 1, math.min(#extents, count * EXTENT_BYTES), EXTENT_BYTES do handles[#handles + 1] = u64(extents, at) end
end

-- The replicas of chunks in the order of `handles`, `absent` (else '') for those that are not in the table: few
-- commands, since handles are given out in rising order and share buckets.
local function read_replicas(handles, absent)
  local replicas, groups = {}, {}
  if absent == nil then absent = '' end
  local function read(bucket, group)
    local held = {}
    if #group.fields < WHOLE_BUCKET then
      local found = call('HMGET', bucket_key(bucket), unpack(group.fields))
      for i, field in ipairs(group.fields) do held[field] = found[i] end
    else
      local found = call('HGETALL', bucket_key(bucket))
      for i = 1, #found, 2 do held[tonumber(found[i])] = found[i + 1] end
    end
    for i, place in ipairs(group.places) do replicas[place] = held[group.fields[i]] or absent end
  end
  for place, handle in ipairs(handles) do
    local bucket = bucket_of(handle)
    local group = groups[bucket]
    if not group then
      group = {fields = {}, places = {}}
      groups[bucket] = group
    end
    local size = #group.fields + 1
    group.fields[size], group.places[size] = handle % BUCKET_CHUNKS, place
  end
  for bucket, group in pairs(groups) do read(bucket, group) end
  return replicas
end

local function count_extents(counts, extents, change)
  for at = 1, #extents, EXTENT_BYTES do
    local handle = u64(extents, at)
    counts[handle] = (counts[handle] or 0) + change
  end
end

-- Change how many extents name chunks of the table, by `counts`. A chunk that none names any more is being freed.
local function change_references(counts, now)
  local handles = {}
  for handle in pairs(counts) do handles[#handles + 1] = handle end
  in_groups(handles, function(...)
    local group, shared, single, freed = {...}, {}, {}, {}
    for i, held in ipairs(call('HMGET', P .. 'r', ...)) do
      local handle = group[i]
      local count = tonumber(held or 1) + counts[handle]
      if count > 1 then
        shared[#shared + 1], shared[#shared + 2] = handle, count
      else
        if held then single[#single + 1] = handle end
        if count < 1 then freed[#freed + 1], freed[#freed + 2] = now, handle end
      end
    end
    if #shared > 0 then call('HSET', P .. 'r', unpack(shared)) end
    if #single > 0 then call('HDEL', P .. 'r', unpack(single)) end
    if #freed > 0 then call('ZADD', P .. 'freed', unpack(freed)) end
  end)
end

-- The content of a record that nobody will read again. Whole records are queued, so this costs the same for any size.
local function queue_content(record)
  if not is_directory(record) and (#record > head_bytes(record) or has_flag(record, OVERFLOW)) then
    call('RPUSH', P .. 'gc', record)
  end
end

-- An entry that is gone for good, with everything beneath it.
local function discard(record)
  if is_directory(record) then call('RPUSH', P .. 'gc_dirs', id_of(record)) else queue_content(record) end
  if has_flag(record, PROPERTIES) then call('UNLINK', P .. 'x:' .. id_of(record)) end
end

-- An entry that was taken from its place: into the trash, under the sequence of its removal, or gone.
local function bury(place, names, sequence, now)
  if not request.has_trash then return discard(place.record) end
  local files, directories, bytes = weigh(place.record)
  local item = {
    names = names, record = place.record, principal = request.condition.principal, deleted_at_ms = now, bytes = bytes,
  }
  call('HSET', P .. 'trash', sequence, cmsgpack.pack(item))
  call('ZADD', P .. 'trash_at', sequence, sequence)
end

local function read_trashed(id)
  if id <= tonumber(call('GET', P .. 'trash_floor') or 0) then return nil end
  local stored = call('HGET', P .. 'trash', id)
  return stored and cmsgpack.unpack(stored)
end

local function forget_trashed(id)
  call('HDEL', P .. 'trash', id)
  call('ZREM', P .. 'trash_at', id)
end

-- A second entry with the same content and properties under a new id; `counts` gets its extents.
local function copy_record(record, id, revision, now, counts)
  local copy = with_created(with_revision(sub(record, 1, 2) .. pack_u64(id) .. sub(record, 11), revision), now)
  if has_flag(record, PROPERTIES) then
    local properties = call('HGETALL', P .. 'x:' .. id_of(record))
    if #properties > 0 then call('HSET', P .. 'x:' .. id, unpack(properties)) end
  end
  if is_directory(record) then return copy end
  local extents = read_extents(record)
  count_extents(counts, extents, 1)
  if has_flag(record, OVERFLOW) then call('SET', overflow_key(id, revision), extents) end
  return copy
end
