#!/bin/sh
# Readies a NIC for `tapsec conformance --configure`: ends the one before, starts
# one with the configuration named, and comes back when frames flow.
#   PROGRAM  tapsec        FOLDER  keeps its process id and log        CHANGE  sed's, to break it
set -e
if [ -e "$FOLDER/pid" ]; then
	kill "$(cat "$FOLDER/pid")" || true
	while [ -e "/proc/$(cat "$FOLDER/pid")/exe" ]; do sleep 0.01; done
	rm "$FOLDER/pid" "$FOLDER/log"
fi
[ -n "$1" ] || exit 0
sed -E "$CHANGE" "$1" >"$FOLDER/nic.yaml"
"$PROGRAM" run -c "$FOLDER/nic.yaml" >"$FOLDER/log" 2>&1 &
echo $! >"$FOLDER/pid"
until grep -qs msg=ready "$FOLDER/log"; do
	[ -e "/proc/$!/exe" ] || { cat "$FOLDER/log"; exit 1; }
	sleep 0.01
done
