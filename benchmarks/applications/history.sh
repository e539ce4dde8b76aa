#!/bin/sh
# Makes a repository with 1,000 commits over 60 files in the directory $1; the
# same objects every time.
set -e
rm -rf "$1"
git init -q --bare "$1"
awk 'BEGIN {
  for (c = 1; c <= 1000; c++) {
    print "commit refs/heads/main"
    print "committer A <a@example.org> " (1700000000 + c * 60) " +0000"
    message = "change " c; print "data " length(message); print message
    for (f = c % 7; f < 60; f += 7) {
      text = ""
      for (l = 0; l < 60; l++) text = text "line " l " of file " f " as of " (l % 5 == c % 5 ? c : int(c / 20)) "\n"
      print "M 100644 inline dir" (f % 6) "/file" f
      print "data " length(text); printf "%s\n", text
    }
  }
}' | git --git-dir="$1" fast-import --quiet --date-format=raw
