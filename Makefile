# Two commands do all: make demo, make test. The rest is for who works on it.

GO ?= go
PEERS = python3-scapy tshark tcpdump iproute2 iputils-ping iperf3 ethtool procps \
	user-mode-linux kmod libipsec-mb-dev strongswan-charon strongswan-swanctl libcharon-extra-plugins \
	libstrongswan-standard-plugins libstrongswan-extra-plugins nftables systemd gdb prometheus curl chromium gcc \
	tmux lintian mmdebstrap hugo buildah strace python3 wireguard-go
# Debian 12 has it in its backports alone.
BACKPORTS = suricata
INTEROP = $(CURDIR)/bin/interop
# As in what is given away. With cgo libcap sends each thread a signal for each step of
# confining the program, for which that takes many seconds in a guest.
export CGO_ENABLED = 0
FUZZTIME ?= 10m
SOAK ?= 2m

.PHONY: build demo test interop race lint fuzz mutate soak bench check peers dist help cross web site

help:
	@echo 'make demo   show the appliance at work in a throw-away rig'
	@echo 'make test   every test; what a missing peer would have judged is skipped aloud'
	@echo 'make build  bin/tapsec        make race   tests under the race detector'
	@echo 'make lint   vet, staticcheck  make fuzz   every fuzz target for FUZZTIME ($(FUZZTIME))'
	@echo 'make web    a page that judges captures in a browser   make cross  other systems'
	@echo 'make site   the pages as a site in dist/site (needs hugo)'
	@echo 'make bench  microbenchmarks   make check  lint, test and race'
	@echo 'make mutate PACKAGE=./wire    which breaks of one line its tests do not notice'
	@echo 'make soak   everything at once against the running program, for SOAK ($(SOAK)); SEED=n repeats'
	@echo 'make interop  real IPsec implementations judge; writes the matrix in docs/interop.md'
	@echo 'make dist   static binaries and Debian packages in dist/ (needs dpkg-deb, git)'
	@echo 'make peers  install the peers that judge in the tests (Debian, root)'

build:
	$(GO) build -trimpath -o bin/tapsec .

demo: build
	bin/tapsec demo

# go test hides what a package that passes has skipped, so what will be is said first.
test:
	@for peer in tshark tcpdump ip; do command -v $$peer >/dev/null || \
		echo "SKIPPED: the tests that need $$peer; make peers installs it"; done
	@/usr/bin/python3 -c 'import scapy' 2>/dev/null || echo 'SKIPPED: the tests that need scapy; make peers installs it'
	@$(GO) run . doctor --json 2>/dev/null | grep -q '"demo": true' || \
		echo 'SKIPPED: the tests on real TAPs; go run . doctor says what is missing'
	$(GO) test -timeout 20m ./...
	@if [ -e /usr/include/intel-ipsec-mb.h ]; then set -x; CGO_ENABLED=1 $(GO) test -tags ipsecmb ./esp ./pipeline ./appliance ./internal/confine; else \
		echo 'SKIPPED: the tests of the build with -tags ipsecmb; make peers installs libipsec-mb-dev'; fi

# A peer for each processor: they mostly wait, or have one at work. MATRIX=-check compares only.
interop: build
	rm -rf $(INTEROP) && mkdir -p $(INTEROP)
	TAPSEC_INTEROP=$(INTEROP) $(GO) test -count=1 -timeout 20m ./test/interop/...
	$(GO) run ./test/interop/matrix $(MATRIX) $(INTEROP) docs/interop.md

race:
	CGO_ENABLED=1 $(GO) test -race ./...

# What reads captures and keys is for other systems, too; their tests are compiled.
PORTABLE = ./configs ./ah ./sa ./wire ./internal/account ./internal/diagnosis ./internal/inspect ./internal/explain
cross:
	@for system in windows/amd64 darwin/amd64 darwin/arm64 linux/arm64; do echo $$system; \
		GOOS=$${system%/*} GOARCH=$${system#*/} $(GO) build -o /dev/null . && \
		GOOS=$${system%/*} GOARCH=$${system#*/} $(GO) vet $(PORTABLE) || exit 1; done

# One page that judges captures in a browser, without a server: dist/web/index.html.
web:
	$(GO) run ./internal/web/build

# The pages, one for each command, and what make web left: dist/site/index.html.
site:
	@docs/site/build dist/site

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run gofmt -w on these'; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

# One after the other, since each takes all cores.
fuzz:
	@for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
		done; \
	done

# Which breaks of one line the tests do not notice: make mutate PACKAGE=./wire N=100
mutate:
	$(GO) run ./test/mutate -n $(or $(N),100) $(PACKAGE)

# SEED=n repeats a sequence of steps, FAILFAST=1 ends with the first violation,
# ONLY=kill,rekey does these actions alone.
soak:
	SOAK=$(SOAK) $(GO) test -count=1 -timeout 0 -v -run TestSoak ./test/soak

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

check: lint test race
	test/red.sh

# The same bytes for the same commit; SOURCE_DATE_EPOCH is the commit's time, if not given.
dist:
	packaging/build dist $(VERSION)

peers:
	apt-get update -qq
	apt-get install -y --no-install-recommends $(PEERS)
	@. /etc/os-release; [ "$$VERSION_CODENAME" != bookworm ] || { \
		mirror=$$(apt-get indextargets --format '$$(REPO_URI)' 'Codename: bookworm' 'Created-By: Packages' | head -1); \
		echo "deb $$mirror bookworm-backports main" >/etc/apt/sources.list.d/tapsec-backports.list; apt-get update -qq; }
	. /etc/os-release; apt-get install -y --no-install-recommends \
		$$([ "$$VERSION_CODENAME" != bookworm ] || echo -t bookworm-backports) $(BACKPORTS)
