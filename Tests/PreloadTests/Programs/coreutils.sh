# sort, grep, find, tar, awk, sed, xargs, diff, gzip: the small tools.
seq 1 200000 | sort -R --random-source=<(yes) > mixed
sort -n mixed | md5sum; sort -u --parallel=2 -S 1M mixed | wc -l
grep -cE '(12|34)+5' mixed
awk '{ n[$1 % 977] += $1 } END { for (k in n) t += n[k] * (k + 1); print t, length(n) }' mixed
sed -E 's/([0-9])([0-9])/\2\1/g' mixed | md5sum
mkdir -p tree; for i in $(seq 1 300); do mkdir -p tree/$((i % 17))/$((i % 5)); echo $i > tree/$((i % 17))/$((i % 5))/f$i; done
find tree -type f -name 'f*7' -size -2 | sort | md5sum
tar -C tree -cf - . | tar -tf - | sort | md5sum
tar -czf tree.tgz tree && mkdir out && tar -C out -xzf tree.tgz && diff -r tree out/tree && echo same
find tree -type f -print0 | xargs -0 -P 4 -n 20 cat | sort -n | md5sum
tr ' ' '\n' < mixed | gzip | gunzip | cmp - mixed && echo equal
ls -lR --time-style=+ tree | wc -l
