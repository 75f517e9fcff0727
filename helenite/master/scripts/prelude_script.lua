-- The head of every script: its request, how it refuses, how it answers.
--
-- KEYS[1] is the space's prefix "{space}:", from which all keys are made, so that they share a slot. ARGV[1] is the
-- request, a msgpack map. The answer is an array: "" and the results, or the code of a class in core/errors.py and a
-- sentence. A script refuses before its first write, never after it, so that it happens whole or not at all. Ids,
-- sequences and handles stay far below 1e14, the largest number that Lua prints exactly.

local P = KEYS[1]
local request = cmsgpack.unpack(ARGV[1])
local call = redis.call
local byte, sub, concat = string.byte, string.sub, table.concat

local OPERATION_S = 120 -- how long a repeat of a mutation is answered with its first outcome

local function fail(code, message)
  error({code = code, message = message}, 0)
end

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function run(body)
  local is_done, result = pcall(body)
  if is_done then return result end
  if type(result) == 'table' and result.code then return {result.code, result.message} end
  return redis.error_reply(type(result) == 'table' and result.err or tostring(result))
end

-- Run a mutation unless its operation id was seen: then its outcome is answered again. An interim outcome (a step of
-- a longer operation) is not kept.
local function run_once(body)
  return run(function()
    local key = P .. 'op:' .. request.operation
    local kept = call('GET', key)
    if kept then
      call('EXPIRE', key, OPERATION_S) -- a write, so that WAIT waits for the replicas this time too
      return cmsgpack.unpack(kept)
    end
    local outcome = body()
    if not outcome.is_interim then call('SET', key, cmsgpack.pack(outcome), 'EX', OPERATION_S) end
    return outcome
  end)
end

-- Redis refuses a script's commands when its memory is full, unless the script has written before. What frees memory
-- calls this first, so that deleting works when nothing else does.
local function write_even_when_full()
  call('DEL', P .. 'none')
end

-- What a leader's loop changes carries its epoch; one that has been replaced is refused.
local function check_epoch()
  local epoch = tonumber(call('GET', P .. 'epoch') or 0)
  if epoch ~= request.epoch then
    fail('stale_epoch', 'epoch ' .. request.epoch .. ' is over, ' .. epoch .. ' is current')
  end
end
