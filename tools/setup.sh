#!/bin/sh
# setup.sh SWIFTC: checks the toolchain and installs the Debian packages of
# packages.txt that are missing. Silent when there is nothing to do; one line and
# status 1 when it cannot be done.
set -u
fail() { echo "kegmalloc: $*" >&2; exit 1; }

swiftc=${1:-swiftc}
command -v "$swiftc" >/dev/null 2>&1 ||
  fail "no Swift toolchain: put swiftc 6.3 or later on PATH (https://www.swift.org/install/linux/)"
version=$("$swiftc" --version 2>/dev/null | sed -n 's/.*Swift version \([0-9]*\.[0-9]*\).*/\1/p' | head -n 1)
case $version in
  6.[3-9] | 6.[1-9][0-9] | [7-9].* | [1-9][0-9].*) ;;
  *) fail "Swift ${version:-of unknown version} is too old: 6.3 or later is needed" ;;
esac
[ "$(uname -m)" = x86_64 ] || fail "$(uname -m) is not supported: x86-64 only"

command -v dpkg-query >/dev/null 2>&1 || exit 0  # not Debian: the compiler will say what is missing
packages=$(sed 's/#.*//' "$(dirname "$0")/packages.txt")
missing=
for package in $packages; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

sudo=
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null && sudo=sudo ||
    fail "missing packages and no right to install them; as root: apt-get install$missing"
fi
echo "kegmalloc: installing$missing"
log=$(mktemp)
{ $sudo apt-get update && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 || {
  tail -n 3 "$log" >&2
  fail "apt-get could not install$missing"
}
rm -f "$log"
