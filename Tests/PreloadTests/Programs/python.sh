# python3: threads, a subprocess, json, regular expressions, big lists, ctypes.
python3 - <<'PY'
import ctypes, json, random, re, subprocess, sys, threading, zlib
random.seed(1)
results = {}
def work(number):
    data = {str(i): [random.Random(number * 1000 + i).random() for _ in range(20)] for i in range(500)}
    text = json.dumps(data)
    assert json.loads(text) == data
    results[number] = len(re.findall(r"\d+\.\d+", text))
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
print(sorted(results.items()))
out = subprocess.run([sys.executable, "-c", "print(sum(range(10**6)))"], capture_output=True, text=True, check=True)
print(out.stdout.strip())
blob = b"".join(bytes([random.randrange(256)]) * random.randrange(2000) for _ in range(3000))
assert zlib.decompress(zlib.compress(blob)) == blob
print(len(blob), zlib.crc32(blob))
words = [str(random.getrandbits(200)) for _ in range(200000)]
words.sort()
print(words[0], words[-1], len(set(words)))
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
for size in range(0, 100000, 997): libc.free(libc.malloc(size))
matrix = [[i * j % 97 for j in range(300)] for i in range(300)]
print(sum(map(sum, zip(*matrix))))
PY
