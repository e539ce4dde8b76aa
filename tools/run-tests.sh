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
  grep -a -e ' recorded an issue' -e '✘' -e ': error:' -e 'Fatal error' "$log" | sort -u | head -60
  # A test that ended the process has no line of its own: the ones under way.
  grep -aq '✘ Test run' "$log" || tail -n 20 "$log"
  # The thread sanitizer's reports come in between.
  grep -a -A40 '^WARNING: ThreadSanitizer' "$log" | cut -c1-160 | head -120
fi
exit "$status"
