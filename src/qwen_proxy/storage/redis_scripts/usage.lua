-- Counters by hour and by day: ARGV[1] names the function. Each call is one step.
--
-- hours, days  sorted sets of the starts (Unix seconds) that there is something of
-- hour, day    + start: hash of what was used by whom -> its counts, with a space between
local hours, days, hour, day = unpack(KEYS)
local call = redis.call

local PAGE = 100
local COUNTS = '^(%d+) (%d+) (%d+) (%d+) (%d+)$'

local function add_to(starts, bucket, start, names, more)
    local a, b, c, d, e = 0, 0, 0, 0, 0
    local old = call('HGET', bucket .. start, names)
    if old then
        a, b, c, d, e = string.match(old, COUNTS)
    else
        call('ZADD', starts, start, start)
    end
    local sum = string.format(
        '%.0f %.0f %.0f %.0f %.0f',
        a + ARGV[more], b + ARGV[more + 1], c + ARGV[more + 2], d + ARGV[more + 3], e + ARGV[more + 4]
    )
    call('HSET', bucket .. start, names, sum)
end

-- Eight of ARGV a row: start of the hour and of the day, names, five counts.
local function add()
    for i = 2, #ARGV, 8 do
        add_to(hours, hour, ARGV[i], ARGV[i + 2], i + 3)
        add_to(days, day, ARGV[i + 1], ARGV[i + 2], i + 3)
    end
    return true
end

local function of(unit)
    if unit == 'day' then
        return days, day
    end
    return hours, hour
end

-- The starts from `since` until before `before`.
local function starts(unit, since, before)
    local told = {}
    for i, start in ipairs(call('ZRANGEBYSCORE', (of(unit)), since, '(' .. before)) do
        told[i] = tonumber(start)
    end
    return told
end

-- Of the starts in ARGV: start, names and counts of each row.
local function read(unit)
    local told = {}
    local _, bucket = of(unit)
    for i = 3, #ARGV do
        local rows = call('HGETALL', bucket .. ARGV[i])
        for row = 1, #rows, 2 do
            told[#told + 1] = {tonumber(ARGV[i]), rows[row], rows[row + 1]}
        end
    end
    return told
end

-- A page of what began before; whether there may be more.
local function prune(unit, before)
    local all, bucket = of(unit)
    local old = call('ZRANGEBYSCORE', all, '-inf', '(' .. before, 'LIMIT', 0, PAGE)
    for _, start in ipairs(old) do
        call('UNLINK', bucket .. start)
        call('ZREM', all, start)
    end
    return #old == PAGE
end

local functions = {add = add, starts = starts, read = read, prune = prune}
return cmsgpack.pack(functions[ARGV[1]](ARGV[2], ARGV[3], ARGV[4]))
