#!/bin/bash
# swift test "$@"; when it fails, what failed is repeated at the end of the output.
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"${SWIFT:-swift}" test "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
if [ "$status" -ne 0 ]; then
  echo
  echo "failed: swift test $*"
  # An issue's own words are the lines after it, up to the next line of the log's.
  awk '/^[◇✔✘↳􀟈]/ { said = 0 } / recorded an issue/ { said = 30 } /^↳/ { said = 30 }
       said > 0 { said--; print substr($0, 1, 400) }' "$log" | head -200
  grep -a -e '✘' -e ': error:' -e 'Fatal error' "$log" | grep -av ' recorded an issue' | sort -u | head -60
  # A test that ended the process has no line of its own: the ones under way.
  grep -aq '✘ Test run' "$log" || tail -n 20 "$log"
  # The thread sanitizer's reports come in between.
  grep -a -A40 '^WARNING: ThreadSanitizer' "$log" | cut -c1-160 | head -120
fi
exit "$status"
