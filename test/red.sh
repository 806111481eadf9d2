#!/bin/sh
# A product that opens nothing must turn the tests red that run it as a program, at
# once, whatever the test cache holds of the product before. Nothing in the checkout
# is changed: go builds with another text of one file.
set -eu
cd "$(dirname "$0")/.."
broken=$(mktemp -d)
trap 'rm -r "$broken"' EXIT
sed '/^\t*p\.tunnelPortion()$/d' pipeline/pipeline.go >"$broken/pipeline.go"
if cmp -s pipeline/pipeline.go "$broken/pipeline.go"; then
	echo "$0: pipeline/pipeline.go has no line p.tunnelPortion() to break" >&2
	exit 1
fi
printf '{"Replace": {"%s": "%s"}}' "$PWD/pipeline/pipeline.go" "$broken/pipeline.go" >"$broken/overlay.json"

both() { go test -run '^(TestVerdicts|TestGood)$' "$@" ./test ./test/interop/linux 2>&1; }
both || { echo "$0: fails without a break" >&2; exit 1; }
said=$(both -overlay "$broken/overlay.json") || true
for test in TestVerdicts TestGood; do
	case $said in
	*"--- FAIL: $test ("*) ;;
	*) echo "$said" && echo "$test is green with a product that opens nothing" >&2 && exit 1 ;;
	esac
done
