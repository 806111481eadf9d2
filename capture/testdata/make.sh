#!/bin/sh
# Makes the captures of this directory, and beside each what tshark reads in it.
# Needs root, iproute2, ping, tcpdump and Wireshark's tools; all traffic stays
# in a network namespace of its own. Made with tcpdump 4.99.3 and tshark 4.0.17:
#
#	unshare -n capture/testdata/make.sh
set -eu
cd "$(dirname "$0")"

ip link set lo up
ip link add d0 type veth peer name d1
ip addr add 192.0.2.1/24 dev d0
ip addr add 2001:db8::1/64 dev d0 nodad
ip link set d0 up
ip link set d1 up
for to in 192.0.2.9 2001:db8::9; do
	ip neigh add "$to" lladdr 02:00:00:00:00:09 dev d0 nud permanent
done

# record COMMAND...: runs a capture beside a few pings, until it has its frames
record() {
	timeout 20 "$@" 2>/dev/null &
	dump=$!
	sleep 1
	for to in 192.0.2.9 2001:db8::9 127.0.0.1; do
		ping -c1 -W1 -s 20 "$to" >/dev/null 2>&1 || true
	done
	wait "$dump"
}
echo_request='icmp[0] = 8 or icmp6[0] = 128'
record tcpdump -Uqnp -w ether.pcap -c 2 -i d0 "$echo_request"
record tcpdump -Uqnp -w snap.pcap -c 2 -i d0 -s 50 "$echo_request"
record tcpdump -Uqnp -w nano.pcap -c 2 -i d0 --time-stamp-precision=nano "$echo_request"
record tcpdump -Uqnp -w sll.pcap -c 5 -i any -y LINUX_SLL "$echo_request"
record tcpdump -Uqnp -w sll2.pcap -c 5 -i any -y LINUX_SLL2 "$echo_request"

record dumpcap -qp -w named.pcapng -c 2 -i d0 -f "$echo_request"

editcap -C 14 -L -T rawip -F pcap ether.pcap raw.pcap
editcap -C 14 -L -T rawip4 -F pcap -r ether.pcap rawip4.pcap 1
editcap -C 14 -L -T rawip6 -F pcap -r ether.pcap rawip6.pcap 2
editcap -F pcapng -a '2:a comment' nano.pcap comment.pcapng
mergecap -F pcapng -w merged.pcapng ether.pcap raw.pcap sll2.pcap nano.pcap
gzip -n9 <ether.pcap >ether.pcap.gz
cat comment.pcapng merged.pcapng >sections.pcapng


# IP headers alone, under link types that no interface here has
v4='45 00 00 14 00 00 00 00 40 3b 00 00 c0 00 02 01 c0 00 02 02'
v6='60 00 00 00 00 00 3b 40 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 02'
made() { echo "0000 $3" | text2pcap -q -F pcap -l "$2" - "$1.pcap"; }
made null 0 "02 00 00 00 $v4"
made null6 0 "1e 00 00 00 $v6"
made loop 108 "00 00 00 02 $v4"
made rawbsd 12 "$v4"
made wifi 105 "08 00 00 00"

for file in *.pcap *.pcapng *.gz; do
	tshark -r "$file" -T fields -E occurrence=f -e frame.time_epoch -e frame.len -e frame.cap_len \
		-e frame.interface_name -e ip.proto -e ipv6.nxt >"$file.tshark"
done
