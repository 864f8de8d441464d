-- Processes, their slots, and allowances: ARGV[1] names the function. Each call is one step. How free slots are shared
-- out is the rule of storage/sharing.py.
--
-- beats    sorted set: living process -> its last beat
-- rows     hash: living process -> what it is, packed by the client
-- status   hash: living process -> what it tells of itself
-- hungry   set of the processes that want slots and find none
-- taken    hash: name -> slots held over all processes; none is left out
-- held     + process: hash of name -> slots it holds
-- used     hash: allowance -> spent
-- windows  sorted set: allowance -> end of its window
--
-- Times are microseconds. PROCESS_MICROSECONDS is defined by who loads this, and now().
local beats, rows, status, hungry, taken, held, used, windows = unpack(KEYS)
local call = redis.call
local at = now()

local PAGE = 500

local function number(text)
    return string.format('%.0f', text)
end

-- Adds to the slots of a process, or takes away where `count` is negative.
local function hold(process, name, count)
    if call('HINCRBY', held .. process, name, count) <= 0 then
        call('HDEL', held .. process, name)
    end
    if call('HINCRBY', taken, name, count) <= 0 then
        call('HDEL', taken, name)
    end
end

local function free(process)
    local holds = call('HGETALL', held .. process)
    for i = 1, #holds, 2 do
        hold(process, holds[i], -holds[i + 1])
    end
end

local function forget(process)
    free(process)
    call('ZREM', beats, process)
    call('HDEL', rows, process)
    call('HDEL', status, process)
    call('SREM', hungry, process)
end

-- Frees what the gone held; how many live.
local function bury()
    local last = number(at - PROCESS_MICROSECONDS)
    for _, process in ipairs(call('ZRANGEBYSCORE', beats, '-inf', last)) do
        forget(process)
    end
    return call('ZCARD', beats)
end

local function tell_of(process, is_hungry, told_status)
    call('ZADD', beats, number(at), process)
    call('HSET', status, process, told_status)
    call(is_hungry == '1' and 'SADD' or 'SREM', hungry, process)
end

-- ARGV: process, row, whether it is hungry, status; then two a hold: name, count.
local function join(process, row, is_hungry)
    free(process)
    tell_of(process, is_hungry, ARGV[5])
    call('HSET', rows, process, row)
    for i = 6, #ARGV, 2 do
        hold(process, ARGV[i], ARGV[i + 1])
    end
    return true
end

-- ARGV: process, whether it is hungry, status. Whether it lives, how many do, whether another is hungry.
local function beat(process, is_hungry, told_status)
    local living = bury()
    local is_known = call('ZSCORE', beats, process) and true or false
    if is_known then
        tell_of(process, is_hungry, told_status)
    end
    return {is_known, living, call('SCARD', hungry) > call('SISMEMBER', hungry, process)}
end

local function leave(process)
    forget(process)
    return true
end

-- Of each living process: id, last beat, whether it is hungry, row, status.
local function processes()
    bury()
    local told = {}
    local living = call('ZRANGE', beats, 0, -1, 'WITHSCORES')
    for i = 1, #living, 2 do
        local process = living[i]
        told[#told + 1] = {
            process,
            tonumber(living[i + 1]),
            call('SISMEMBER', hungry, process) == 1,
            call('HGET', rows, process) or '',
            call('HGET', status, process) or '',
        }
    end
    return told
end

local function share(plenty, extra, living)
    local part = math.floor(plenty / (2 * math.max(0, living - 1) + 1))
    return math.max(0, math.min(extra, part))
end

-- How many are taken of each name, how many are free of all, and the fewest that are taken of one that has some free.
local function claims(names, capacity)
    local counts, plenty, level = {}, 0, capacity
    for from = 1, #names, PAGE do
        local found = call('HMGET', taken, unpack(names, from, math.min(from + PAGE - 1, #names)))
        for i = 1, #found do
            local count = found[i] and tonumber(found[i]) or 0
            counts[from + i - 1] = count
            if count < capacity then
                plenty = plenty + capacity - count
                level = count < level and count or level
            end
        end
    end
    return counts, plenty, level
end

-- What each name gives of `count`, which is free: one by one from the fewest taken, by their order where equal.
local function spread(counts, count, level)
    local granted = {}
    while count > 0 do
        for i = 1, #counts do
            if counts[i] + (granted[i] or 0) == level then
                granted[i] = (granted[i] or 0) + 1
                count = count - 1
                if count == 0 then
                    break
                end
            end
        end
        level = level + 1
    end
    return granted
end

-- The same strictly in order of the names.
local function in_order(counts, count, capacity)
    local granted = {}
    for i = 1, #counts do
        granted[i] = math.min(math.max(0, capacity - counts[i]), count)
        count = count - granted[i]
        if count == 0 then
            break
        end
    end
    return granted
end

-- ARGV: process, capacity, need, extra, whether spread, names (MessagePack). What was granted, as place of the name from
-- 0 and count, and the places of the names that are full now.
local function take(process, capacity, need, extra)
    local living = bury()
    if not call('ZSCORE', beats, process) then
        return {{}, {}}
    end
    capacity = tonumber(capacity)
    local names = cmsgpack.unpack(ARGV[7])
    local counts, plenty, level = claims(names, capacity)
    local count = math.min(plenty, tonumber(need))
    count = count + share(plenty - count, tonumber(extra), living)
    local granted = ARGV[6] == '1' and spread(counts, count, level) or in_order(counts, count, capacity)
    local holds, full = {}, {}
    for i = 1, #counts do
        local more = granted[i] or 0
        if more > 0 then
            hold(process, names[i], more)
            holds[#holds + 1] = {i - 1, more}
        end
        if counts[i] + more >= capacity then
            full[#full + 1] = i - 1
        end
    end
    return {holds, full}
end

-- ARGV: process; then two a hold: name, count.
local function give(process)
    for i = 3, #ARGV, 2 do
        local has = tonumber(call('HGET', held .. process, ARGV[i]) or 0)
        if has > 0 then
            hold(process, ARGV[i], number(-math.min(has, tonumber(ARGV[i + 1]))))
        end
    end
    return true
end

-- Each name with the prefix and how many are held.
local function count_taken(prefix)
    bury()
    local told = {}
    local all = call('HGETALL', taken)
    for i = 1, #all, 2 do
        if string.sub(all[i], 1, #prefix) == prefix then
            told[#told + 1] = {all[i], tonumber(all[i + 1])}
        end
    end
    return told
end

local function used_of(name)
    local stop = call('ZSCORE', windows, name)
    if stop and tonumber(stop) > at then
        return tonumber(call('HGET', used, name) or 0)
    end
    return 0
end

local function spend(name, stop, amount)
    call('HSET', used, name, number(amount))
    call('ZADD', windows, stop, name)
end

-- Five of ARGV a draw: name, end, limit, need, extra. Of each: granted, used.
local function draw()
    local living = bury()
    local told = {}
    for i = 2, #ARGV, 5 do
        local name, stop, need = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 3])
        local before, granted = used_of(name), 0
        local plenty = ARGV[i + 2] - before
        if tonumber(stop) > at and plenty >= need then
            granted = need + share(plenty - need, tonumber(ARGV[i + 4]), living)
            if granted > 0 then
                spend(name, stop, before + granted)
            end
        end
        told[#told + 1] = {granted, before + granted}
    end
    return told
end

-- Three of ARGV a charge: name, end, amount.
local function charge()
    for i = 2, #ARGV, 3 do
        if tonumber(ARGV[i + 1]) > at then
            spend(ARGV[i], ARGV[i + 1], math.max(0, used_of(ARGV[i]) + ARGV[i + 2]))
        end
    end
    return true
end

-- A page of the allowances whose window has ended; whether there may be more.
local function sweep()
    bury()
    local ended = call('ZRANGEBYSCORE', windows, '-inf', number(at), 'LIMIT', 0, PAGE)
    for _, name in ipairs(ended) do
        call('HDEL', used, name)
        call('ZREM', windows, name)
    end
    return #ended == PAGE
end

-- Whether what is counted as taken is what the living hold.
local function check()
    bury()
    local sums = {}
    for _, process in ipairs(call('ZRANGE', beats, 0, -1)) do
        local holds = call('HGETALL', held .. process)
        for i = 1, #holds, 2 do
            sums[holds[i]] = (sums[holds[i]] or 0) + holds[i + 1]
        end
    end
    local all = call('HGETALL', taken)
    for i = 1, #all, 2 do
        if sums[all[i]] ~= tonumber(all[i + 1]) then
            return false
        end
        sums[all[i]] = nil
    end
    return next(sums) == nil
end

local functions = {
    join = join,
    beat = beat,
    leave = leave,
    processes = processes,
    take = take,
    give = give,
    taken = count_taken,
    draw = draw,
    charge = charge,
    sweep = sweep,
    check = check,
}
return cmsgpack.pack(functions[ARGV[1]](ARGV[2], ARGV[3], ARGV[4], ARGV[5]))
