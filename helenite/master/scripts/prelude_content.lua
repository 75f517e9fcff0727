-- Content: extents, reference counts, the chunk table, and what becomes of entries that are no longer wanted.
--
-- {s}:r counts the extents that name a chunk, in records of all kinds: live, in the trash, being copied, queued for
-- release. Absent means one, so that a chunk used once costs nothing. {s}:c:<handle / 512> holds a chunk's replicas.

local EXTENT_BYTES = 16
local INLINE_EXTENTS_MAX = 12 -- as in core/record.py
local BUCKET_CHUNKS = 512

local function overflow_key(id, revision) return P .. 'e:' .. id .. ':' .. revision end

local function read_extents(record)
  if not has_flag(record, OVERFLOW) then return sub(record, HEADER_BYTES + 1) end
  return call('GET', overflow_key(id_of(record), revision_of(record))) or ''
end

-- The tail of a file's record; extents beyond the limit are written to a key of their own.
local function new_file(id, revision, size, modified_at_ms, created_at_ms, extents)
  local flags = 0
  if #extents > INLINE_EXTENTS_MAX * EXTENT_BYTES then
    call('SET', overflow_key(id, revision), extents)
    flags, extents = OVERFLOW, ''
  end
  return struct.pack('>BBI8I8I8I8I8', FILE, flags, id, revision, size, modified_at_ms, created_at_ms) .. extents
end

local function bucket_of(handle)
  return P .. 'c:' .. math.floor(handle / BUCKET_CHUNKS), handle % BUCKET_CHUNKS
end

local function read_replicas(handle)
  local key, field = bucket_of(handle)
  return call('HGET', key, field)
end

-- `count` more extents name a chunk that one names already.
local function add_references(handle, count)
  if call('HINCRBY', P .. 'r', handle, count) == count then call('HSET', P .. 'r', handle, count + 1) end
end

local function drop_reference(handle, now)
  local count = call('HGET', P .. 'r', handle)
  if not count then
    call('ZADD', P .. 'freed', now, handle)
  elseif count == '2' then
    call('HDEL', P .. 'r', handle)
  else
    call('HINCRBY', P .. 'r', handle, -1)
  end
end

-- The content of a record that nobody will read again. Whole records are queued, so this costs the same for any size.
local function queue_content(record)
  if not is_directory(record) and (#record > HEADER_BYTES or has_flag(record, OVERFLOW)) then
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

-- A second entry with the same content and properties under a new id.
local function copy_record(record, id, revision, now)
  local copy = with_created(with_revision(sub(record, 1, 2) .. pack_u64(id) .. sub(record, 11), revision), now)
  if has_flag(record, PROPERTIES) then
    local properties = call('HGETALL', P .. 'x:' .. id_of(record))
    if #properties > 0 then call('HSET', P .. 'x:' .. id, unpack(properties)) end
  end
  if is_directory(record) then return copy end
  local extents = read_extents(record)
  for at = 1, #extents, EXTENT_BYTES do add_references(u64(extents, at), 1) end
  if has_flag(record, OVERFLOW) then call('SET', overflow_key(id, revision), extents) end
  return copy
end
