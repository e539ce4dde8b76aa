#!/bin/bash
# all.sh: the static checks of `make check`. Each prints one line; the first that
# fails says what is wrong, and the status is 1.
#   OUT    where `make` left the library       BUILD  where its objects are
set -u
cd "$(dirname "$0")/../.."
OUT=${OUT:-out}
BUILD=${BUILD:-out/build/release}
LIBRARY=$OUT/lib/libkegmalloc.so
DEBUG_LIBRARY=$OUT/lib/libkegmalloc-debug.so
failures=0

# check NAME OUTPUT: passes when OUTPUT is empty.
check() {
  if [ -z "$2" ]; then
    echo "ok: $1"
  else
    echo "FAILED: $1" >&2
    printf '%s\n' "$2" | head -n 20 | sed 's/^/  /' >&2
    failures=$((failures + 1))
  fi
}

exported() { nm -D --defined-only "$1" | awk '{print $3}' | LC_ALL=C sort; }
golden() { cat "${@/#/Tests/PreloadTests/}" | grep -v '^#' | grep . | LC_ALL=C sort; }
core() { git ls-files 'Sources/*.swift'; }

check "the library exports what exports.golden says, and no swift_* symbol" \
  "$(diff <(exported "$LIBRARY") <(golden exports.golden))"
check "the debug library exports what exports-debug.golden says" \
  "$(diff <(exported "$DEBUG_LIBRARY") <(golden exports.golden exports-debug.golden))"
check "they need libc and nothing else" \
  "$(readelf -d "$LIBRARY" "$DEBUG_LIBRARY" | grep NEEDED | grep -v 'libc\.so\.6')"
check "it is bound at start, never unloaded, relocated read-only" \
  "$(for flag in NOW NODELETE STATIC_TLS; do readelf -d "$LIBRARY" | grep -q "$flag" || echo "no $flag"; done
     readelf -lW "$LIBRARY" | grep -q GNU_RELRO || echo 'no RELRO')"
check "it is below 200 KiB" \
  "$([ "$(stat -c %s "$LIBRARY")" -lt 204800 ] || stat -c '%s bytes' "$LIBRARY")"
check "it has a build-id and unwind tables" \
  "$(readelf -SW "$LIBRARY" | grep -q '\.note\.gnu\.build-id' || echo 'no build-id'
     readelf -SW "$LIBRARY" | grep -q '\.eh_frame ' || echo 'no .eh_frame')"
check "a start maps two segments, and shim/startup.order is not too old (make order)" \
  "$([ "$(readelf -lW "$LIBRARY" | grep -c ' LOAD ')" -eq 2 ] || echo 'more segments'
     nm "$BUILD"/libkegmalloc.so | awk '{print $3}' | sort -u | comm -12 - <(sort -u shim/startup.order) |
       awk -v all="$(wc -l < shim/startup.order)" 'END {if (NR < all * 3 / 4) print NR " of " all " functions are left"}')"
check "no global is made lazily under swift_once" \
  "$(nm "$BUILD"/Malloc.o "$BUILD"/ZoneAPI.o "$BUILD"/libkegmalloc-debug.so | grep '_Wz$')"
check "only Pages and the shim make system calls on memory" \
  "$(core | grep -v '^Sources/Pages/' | xargs grep -nE 'KEG_SYS_(mmap|munmap|mprotect|madvise)')"
check "the core uses die, not what -Ounchecked deletes" \
  "$(core | xargs grep -nE '\b(fatalError|precondition|preconditionFailure|assert|assertionFailure)\(')"
check "no conditional compilation but hasFeature(Embedded) and INVARIANTS" \
  "$(core | xargs grep -nE '^ *#if' | grep -vE '#if (hasFeature\(Embedded\)|INVARIANTS)')"
check "kegmalloc.h is C99 and C++ by itself" \
  "$(cc -std=c99 -pedantic -Wall -Wextra -Werror -fsyntax-only -xc shim/include/kegmalloc.h 2>&1
     c++ -std=c++11 -pedantic -Wall -Wextra -Werror -fsyntax-only -xc++ shim/include/kegmalloc.h 2>&1)"
check "kegmalloc(3) and keg_arena(3) have the functions of kegmalloc.h, word for word" \
  "$(diff <(tools/checks/prototypes.sh header shim/include/kegmalloc.h) \
          <(tools/checks/prototypes.sh manual docs/man/kegmalloc.3 docs/man/keg_arena.3))"
check "kegmalloc.h declares the keg_ functions that the library exports" \
  "$(diff <(tools/checks/prototypes.sh header shim/include/kegmalloc.h | grep -oE 'keg_[a-z_]+\(' | tr -d '(' | LC_ALL=C sort) \
          <(golden exports.golden | grep '^keg_'))"
check "C lies in the shim, in fixtures and in benchmarks" \
  "$(git ls-files '*.c' '*.cc' '*.cpp' '*.h' '*.s' '*.S' | grep -vE '^(shim|benchmarks|examples|Tests/PreloadTests/Fixtures)/')"
check "files of the core have at most 400 lines" \
  "$(core | while read -r file; do n=$(wc -l <"$file"); [ "$n" -le 400 ] || echo "$file: $n"; done)"
check "every file of the core says what it is" \
  "$(core | while read -r file; do head -n 1 "$file" | grep -q "^// $(basename "$file"): " || echo "$file"; done)"
check "every target imports only what it declares" \
  "$(swift build --explicit-target-dependency-import-check error 2>&1 | grep -E 'error:' | sort -u)"
check "documentation links lead somewhere" \
  "$(grep -oE '\]\([A-Za-z0-9_./-]+\)' README.md docs/*.md | while IFS=: read -r file link; do
       target=${link#](}; target=${target%)}
       [ -e "$(dirname "$file")/$target" ] || echo "$file: $target"; done)"
exit $((failures > 0))
