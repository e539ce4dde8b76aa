-- An ordinary Lua program: tables of tables, closures, strings.
local objects, sum = {}, 0
for round = 1, 12 do
  for i = 1, 40000 do
    local name = "object " .. (i * 7919 % 10007)
    objects[i] = {name = name, round = round, add = function(x) return x + i end}
  end
  local parts = {}
  for i = 1, 40000, 4 do parts[#parts + 1] = objects[i].name:upper() end
  local text = table.concat(parts, ",")
  for word in text:gmatch("[^,]+") do sum = (sum * 31 + #word) % 1000003 end
  for i = 1, 40000 do sum = (sum + objects[i].add(round)) % 1000003 end
end
print(sum)
