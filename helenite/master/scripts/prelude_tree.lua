-- The tree: records (core/record.py), walking a path, totals and sequences of directories, the feed.

local FILE, DIRECTORY = 1, 2
local OVERFLOW, PROPERTIES, DIGEST = 1, 2, 4 -- flags of a record
local HEADER_BYTES, SHA256_BYTES = 42, 32
local FEED_MAX = 100000 -- changes kept: minutes of full load, weeks of a family's; about 15 MB

local function u64(text, at) return (struct.unpack('>I8', text, at)) end
local function pack_u64(number) return struct.pack('>I8', number) end

local function kind_of(record) return byte(record, 1) end
local function has_flag(record, flag) return bit.band(byte(record, 2), flag) ~= 0 end
local function id_of(record) return u64(record, 3) end
local function revision_of(record) return u64(record, 11) end
local function size_of(record) return u64(record, 19) end
local function created_of(record) return u64(record, 35) end
local function is_directory(record) return byte(record, 1) == DIRECTORY end

-- A record is its head, which is what listings show, and its extents.
local function head_bytes(record) return has_flag(record, DIGEST) and HEADER_BYTES + SHA256_BYTES or HEADER_BYTES end
local function head_of(record) return sub(record, 1, head_bytes(record)) end
local function inline_extents(record) return sub(record, head_bytes(record) + 1) end

local function with_flag(record, flag, is_on)
  local flags = is_on and bit.bor(byte(record, 2), flag) or bit.band(byte(record, 2), bit.bnot(flag))
  return sub(record, 1, 1) .. string.char(flags) .. sub(record, 3)
end
local function with_revision(record, revision) return sub(record, 1, 10) .. pack_u64(revision) .. sub(record, 19) end
local function with_modified(record, at_ms) return sub(record, 1, 26) .. pack_u64(at_ms) .. sub(record, 35) end
local function with_created(record, at_ms) return sub(record, 1, 34) .. pack_u64(at_ms) .. sub(record, 43) end

local function new_directory(id, sequence, modified_at_ms, now)
  return struct.pack('>BBI8I8I8I8I8', DIRECTORY, 0, id, sequence, 0, modified_at_ms, now)
end

-- Totals: {s}:q holds for each directory the highest sequence beneath it and the files, directories and bytes there.

local function read_totals(id)
  local stored = call('HGET', P .. 'q', id)
  if not stored then return 0, 0, 0, 0 end
  local sequence, files, directories, bytes = struct.unpack('>I8I8I8I8', stored)
  return sequence, files, directories, bytes
end

local function start_totals(id, sequence)
  call('HSET', P .. 'q', id, struct.pack('>I8I8I8I8', sequence, 0, 0, 0))
end

local function add_totals(ids, sequence, files, directories, bytes)
  if #ids == 0 then return end
  local stored = call('HMGET', P .. 'q', unpack(ids))
  local changed = {}
  for i, id in ipairs(ids) do
    local f, d, b = 0, 0, 0
    if stored[i] then
      local _
      _, f, d, b = struct.unpack('>I8I8I8I8', stored[i])
    end
    changed[2 * i - 1] = id
    changed[2 * i] = struct.pack('>I8I8I8I8', sequence, f + files, d + directories, b + bytes)
  end
  call('HSET', P .. 'q', unpack(changed))
end

-- What an entry adds to the totals of its ancestors.
local function weigh(record)
  if not is_directory(record) then return 1, 0, size_of(record) end
  local _, files, directories, bytes = read_totals(id_of(record))
  return files, directories + 1, bytes
end

local function current_revision(record)
  if is_directory(record) then return (read_totals(id_of(record))) end
  return revision_of(record)
end

-- A record as scripts hand it out: a directory's revision is its subtree's sequence. Extents that overflowed stay
-- where they are; only a look-up puts them back.
local function handed_out(record)
  if is_directory(record) then return with_revision(record, current_revision(record)) end
  return record
end

-- Paths. A place is where a path leads: the directory `dir` whose hash holds (or would hold) `name`, the ids of all
-- directories from the root to it, its own record's home `parent`, and the entry's `record`, nil when there is none.
-- `is_cut`: an ancestor is missing or is a file. The root stands in the hash of directory 0 under the empty name.

local function path_text(names) return '/' .. concat(names, '/') end

local function resolve(names)
  local place = {path = path_text(names), ids = {}, name = names[#names] or ''}
  local parent, id = {dir = 0, name = ''}, 1
  if #names == 0 then
    place.dir, place.record = 0, call('HGET', P .. 'd:0', '')
    return place
  end
  place.ids[1] = id
  for level = 1, #names - 1 do
    local record = call('HGET', P .. 'd:' .. id, names[level])
    if not record or not is_directory(record) then
      place.is_cut = true
      return place
    end
    parent = {dir = id, name = names[level], record = record}
    id = id_of(record)
    place.ids[level + 1] = id
  end
  place.dir, place.parent = id, parent
  place.record = call('HGET', P .. 'd:' .. id, place.name) or nil
  return place
end

local function contains(list, wanted)
  for _, item in ipairs(list) do
    if item == wanted then return true end
  end
  return false
end

local function reversed(list)
  local result = {}
  for i = #list, 1, -1 do result[#result + 1] = list[i] end
  return result
end

local function joined(list, more)
  local result = {}
  for _, item in ipairs(list) do result[#result + 1] = item end
  for _, item in ipairs(more) do
    if not contains(result, item) then result[#result + 1] = item end
  end
  return result
end

local function must_exist(place)
  if not place.record then fail('entry_not_found', 'there is no ' .. place.path) end
end

local function parent_must_exist(place)
  if place.is_cut then fail('parent_not_found', 'the directory of ' .. place.path .. ' does not exist') end
end

local function check_condition(place, condition)
  local record, expect = place.record, condition.expect
  if expect == 'any' then return end
  if expect == 'absent' then
    if record then fail('precondition_failed', place.path .. ' exists') end
    return
  end
  if not record then fail('precondition_failed', place.path .. ' does not exist') end
  if expect == 'present' then return end
  if id_of(record) ~= condition.id or current_revision(record) ~= condition.revision then
    fail('precondition_failed', place.path .. ' has changed')
  end
end

-- An entry cannot be put into itself, onto itself or over a directory that it lies in.
local function refuse_cycle(source, target)
  local id = id_of(source.record)
  local target_id = target.record and id_of(target.record)
  if id == target_id or contains(target.ids, id) or (target_id and contains(source.ids, target_id)) then
    fail('cycle', source.path .. ' and ' .. target.path .. ' lie in one another')
  end
end

local function put_record(place, record)
  call('HSET', P .. 'd:' .. place.dir, place.name, record)
end

-- A directory whose members changed is modified now.
local function touch_parent(place, now)
  local parent = place.parent
  local record = parent.record or call('HGET', P .. 'd:' .. parent.dir, parent.name)
  call('HSET', P .. 'd:' .. parent.dir, parent.name, with_modified(record, now))
end

local function next_sequence() return call('INCR', P .. 'seq') end

-- One element of the feed; `ids` are the directories whose listing changed, the root first. `replaced` is the
-- record of what stood there before, with all that was beneath it.
local function announce(sequence, verb, place, source_path, record, ids, replaced)
  local change = {verb, place.path, source_path, id_of(record), kind_of(record), reversed(ids), replaced and kind_of(replaced)}
  call('XADD', P .. 'feed', 'MAXLEN', '~', FEED_MAX, sequence .. '-0', 'c', cmsgpack.pack(change))
end

local function outcome(place, record, is_new, sequence, locks)
  return {'', place.name, handed_out(record), is_new and 1 or 0, sequence, locks or ''}
end
