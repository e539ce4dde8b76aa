#!/bin/bash
# prototypes.sh: the functions of kegmalloc.h, one a line, as `type name(argument, …)`.
#   prototypes.sh header FILE        as the C header declares them
#   prototypes.sh manual FILE …      as the synopses of manual pages do (.Ft, .Fn)
# all.sh compares the two.
set -eu
kind=$1
shift
case $kind in
header)
  # Without comments and directives, one declaration a line, no typedefs, enums, structs.
  sed -e 's|/\*.*\*/||' "$@" | sed -e '/\/\*/,/\*\//d' -e '/^#/d' -e '/^extern "C"/d' |
    tr '\n' ' ' | sed -e 's/{[^{}]*}//g' -e 's/{[^{}]*}//g' -e 's/;/;\n/g' |
    grep -E '\bkeg_[a-z_]+\(' | grep -v typedef | sed -e 's/(void);/();/' -e 's/;$//'
  ;;
manual)
  # .Ft "type" / .Fn name "argument" …
  sed -nE -e 's/^\.Ft "?([^"]*)"?$/\1 /p' -e '/^\.Fn keg_[a-z_]+( "|$)/{s/^\.Fn (keg_[a-z_]+) ?/\1(/;s/" "/, /g;s/"//g;s/$/)\n/;p}' <(sed '/^\.Sh DESCRIPTION/q' "$1") |
    tr -d '\n' | sed 's/)\([a-z]\)/)\n\1/g'
  shift
  echo
  [ $# = 0 ] || exec "$0" manual "$@"
  ;;
esac | sed -E -e 's/ +/ /g' -e 's/^ //' -e 's/ $//' -e 's/ ?\* ?/*/g' -e '/^$/d' | LC_ALL=C sort
