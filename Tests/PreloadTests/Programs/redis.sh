# redis-server under load from redis-benchmark on the loopback, then a check of the data.
port=$((20000 + $$ % 20000))
redis-server --port $port --bind 127.0.0.1 --save '' --appendonly no --daemonize no > server.log 2>&1 &
server=$!
for i in $(seq 1 600); do redis-cli -p $port ping > /dev/null 2>&1 && break; sleep 0.1; done
redis-benchmark -p $port -n 20000 -c 20 -P 4 -r 10000 -d 200 -t set,get,incr,lpush,rpop,sadd,hset,zadd,lrange_100 -q > /dev/null 2>&1 || echo benchmark failed
redis-cli -p $port flushall
redis-cli -p $port eval 'for i=1,20000 do redis.call("set", "k"..i, string.rep("v", i%500)) end return redis.call("dbsize")' 0
redis-cli -p $port eval 'local n=0 for i=1,20000 do n=n+redis.call("strlen","k"..i) end return n' 0
redis-cli -p $port bgsave > /dev/null; sleep 1
redis-cli -p $port shutdown nosave
wait $server; echo "server exit $?"
