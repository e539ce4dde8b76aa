# nodejs: objects, buffers, JSON, workers, zlib, a child process.
node -e '
  const { Worker } = require("worker_threads"), zlib = require("zlib"), cp = require("child_process");
  const all = []; for (let i = 0; i < 200000; i++) all.push({ i, s: "x".repeat(i % 50) });
  const text = JSON.stringify(all); console.log(text.length, JSON.parse(text).length);
  const blob = Buffer.alloc(20e6, "abcdefg"); console.log(zlib.gunzipSync(zlib.gzipSync(blob)).equals(blob));
  console.log(cp.execFileSync("echo", ["child"]).toString().trim());
  let left = 4; for (let n = 0; n < 4; n++) new Worker("let s=0;for(let i=0;i<1e6;i++)s+=i%7;require(\"worker_threads\").parentPort.postMessage(Buffer.alloc(1e6,s%256).length)", { eval: true })
    .on("message", m => { if (--left === 0) console.log("workers", m); });
'
