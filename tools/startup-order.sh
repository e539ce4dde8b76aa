#!/bin/bash
# startup-order.sh: writes shim/startup.order, the functions of libkegmalloc.so that small
# programs run, in the order in which the linker is to lay them out.
#   BUILD  where the library with its symbols is
#
# callgrind names what ran. First comes what a process runs that never allocates: its
# pages are those that the dynamic linker reads anyway. The rest is in the order of
# addresses, as linked without this file. An old list is no error, only worth less:
# names that are gone are passed over, new functions lie behind the known ones.
set -euo pipefail
cd "$(dirname "$0")/.."
BUILD=${BUILD:-out/build/release}
LIBRARY=$PWD/$BUILD/libkegmalloc.so
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
count=0
while read -r program; do
  count=$((count + 1))
  # shellcheck disable=SC2086 # words of a command
  (cd / && LD_PRELOAD=$LIBRARY valgrind --tool=callgrind \
    --callgrind-out-file="$scratch/$count.%p" $program) 2>&1 | cat > "$scratch/log" ||
    { cat "$scratch/log" >&2; exit 1; }
done <<'PROGRAMS'
sleep 0
ls -l /
cat /etc/passwd
sh -c true
sh -c (:);:
git --version
python3 -c 1
PROGRAMS
cat "$scratch"/[0-9]* | sed -nE "s/^c?fn=\([0-9]+\) ([^']*)('[0-9]+)?$/\1/p" | sort -u > "$scratch/ran"
{
  echo at_exit
  echo keg_report_at_exit
  # Of an address that ran under any of its names, the name that the objects have:
  # the names of the C library are aliases that the linker makes later.
  nm "$LIBRARY" | awk 'NR == FNR {ran[$0]; next} $2 ~ /[tT]/ {if ($3 in ran) at[$1]; names[$1] = names[$1] " " $3}
    END {for (a in at) print a names[a]}' "$scratch/ran" - | sort | cut -d' ' -f2- | tr ' ' '\n' |
    grep -E '^(\$|keg_|pthread_|dlopen)' | grep -vx keg_report_at_exit
} > "$scratch/order"
test "$(wc -l < "$scratch/order")" -gt 50
cp "$scratch/order" shim/startup.order
wc -l shim/startup.order
