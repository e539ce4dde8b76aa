# bash: arrays, substitutions, pipelines, here documents, background jobs.
declare -A seen
for i in $(seq 1 3000); do seen[$((i * 7919 % 1009))]+="$i "; done
echo ${#seen[@]} "${seen[5]}"
text=$(seq 1 20000 | tr '\n' ' ')
echo ${#text} "${text//9/nine}" | md5sum
for i in 1 2 3 4 5 6 7 8; do (seq 1 $((i * 1000)) | sort -r | head -1) & done | sort -n
wait
while read -r a b; do echo "$b-$a"; done < <(paste <(seq 1 50) <(seq 51 100)) | md5sum
f() { local n=$1; ((n < 2)) && { echo "$n"; return; }; echo $(($(f $((n - 1))) + $(f $((n - 2))))); }
f 9
