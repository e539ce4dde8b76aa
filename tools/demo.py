"""A second or two of ordinary work: threads, strings, dictionaries, a subprocess."""
import json
import subprocess
import sys
import threading

results = []


def work(seed):
    words = {}
    for i in range(60_000):
        key = f"word-{(i * seed) % 7919}"
        words.setdefault(key, []).append(i)
    text = json.dumps(words)
    results.append((len(words), len(json.loads(text))))


threads = [threading.Thread(target=work, args=(n,)) for n in (3, 5, 7, 11)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
child = subprocess.run(
    [sys.executable, "-c", "print(sum(len(str(i)) for i in range(200_000)))"],
    capture_output=True, text=True, check=True, env={})
print("threads:", sorted(results), "subprocess:", child.stdout.strip(), flush=True)
