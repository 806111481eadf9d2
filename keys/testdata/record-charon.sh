#!/bin/bash
# Records what charon logs with chd = 4, as root on a machine with strongSwan:
#
#   unshare -n -m bash record-charon.sh /tmp/recorded libipsec
#   bash record-charon.sh /run/recorded netlink     where the kernel has ESP and AH
#
# Two charons in two namespaces; on the lines of the second one stand time, level
# and the IKE SA too. libipsec: its own ESP, every kind of suite, and a rekey begun
# by either side. netlink: Linux's ESP and AH, transport mode, ESN, no NAT. Was run
# in user-mode Linux (record.sh has its modules). The keys protected nothing.
set -eu
mkdir -p "$1"; cd "$1"; here=$PWD
mount --make-rslave /
mount -t tmpfs run /run; mkdir /run/netns
ip netns add a; ip netns add b
ip link add va netns a type veth peer name vb netns b
for host in a:1 b:2; do
	n=${host%:*}; i=${host#*:}
	ip -n $n link set lo up; ip -n $n link set v$n up
	ip -n $n addr add 192.0.2.$i/24 dev v$n; ip -n $n addr add 2001:db8::$i/64 dev v$n nodad
	ip -n $n addr add 10.1.$i.1/32 dev lo; ip -n $n addr add fd01:$i::1/128 dev lo nodad
done

start() { # NAME PLUGIN...
	n=$1; shift; rm -f $n.log
	cat > $n.conf <<-X
		charon {
			load = random nonce openssl aes sha1 sha2 hmac gcm ccm ctr xcbc cmac chapoly curve25519 kdf pem $* kernel-netlink socket-default vici
			filelog {
				log {
					path = $here/$n.log
					flush_line = yes
					default = 1
					chd = 4
					$(test $n = a || printf '%s\n' 'time_format = %b %e %T' 'ike_name = yes' 'log_level = yes')
				}
			}
			plugins {
				vici {
					socket = unix://$here/$n.vici
				}
			}
		}
	X
	STRONGSWAN_CONF=$here/$n.conf ip netns exec $n unshare -m sh -c 'mount -t tmpfs run /run; exec /usr/lib/ipsec/charon' >/dev/null 2>&1 &
	eval pid_$n=$!
	while ! [ -S $n.vici ]; do sleep 0.1; done
}
stop() { kill $pid_a $pid_b; wait $pid_a $pid_b || true; rm -f a.vici b.vici; }

child() { # NAME SUITES MODE LOCAL REMOTE
	printf '%s {\n %s_proposals = %s\n mode = %s\n local_ts = %s\n remote_ts = %s\n}\n' $1 ${1%%-*} $2 $3 $4 $5
}
conf() { # NUMBER OTHER: one child for each suite of the first host's, one for all of the second's
	local kids
	case $what,$1 in
	libipsec,1) kids=$(for s in $suites; do child esp-$s $s tunnel 10.1.1.1/32,fd01:1::1/128 10.1.2.1/32,fd01:2::1/128; done) ;;
	libipsec,2) kids=$(child esp-all ${suites// /,} tunnel 10.1.2.1/32,fd01:2::1/128 10.1.1.1/32,fd01:1::1/128) ;;
	netlink,*) kids=$(child esp-transport aes256-sha512-esn transport dynamic[17] dynamic[17]
		child ah-transport sha256 transport dynamic[6] dynamic[6]
		child ah-tunnel sha384-esn tunnel 10.1.$1.1/32 10.1.$2.1/32
		child esp-tunnel aes128gcm16-esn tunnel fd01:$1::1/128 fd01:$2::1/128) ;;
	esac
	echo "connections {"
	for net in v4:192.0.2. v6:2001:db8::; do
		printf '%s {\n version = 2\n proposals = aes128-sha256-curve25519\n local_addrs = %s\n remote_addrs = %s\n' ${net%%:*} ${net#*:}$1 ${net#*:}$2
		printf 'local {\n auth = psk\n id = %s\n}\nremote {\n auth = psk\n id = %s\n}\nchildren {\n%s\n}\n}\n' $1 $2 "$kids"
	done
	printf '}\nsecrets {\n ike {\n secret = "not one"\n}\n}\n'
}
ctl() { n=$1; shift; swanctl "$@" --uri unix://$here/$n.vici 2>&1 | grep -v "opening directory" | tail -1; }

suites="aes128gcm16 aes192gcm12 aes256gcm8 aes128ccm16 aes256ccm8 chacha20poly1305 aes128-sha256 aes192-sha384 aes256-sha512 aes128ctr-sha1 aes256ctr-aesxcbc aes128-aescmac 3des-md5 null-sha256"
what=$2
conf 1 2 > a.swanctl; conf 2 1 > b.swanctl
own=; test $what = netlink || own=kernel-libipsec
start a $own; start b $own
ctl a --load-all --file a.swanctl; ctl b --load-all --file b.swanctl
case $what in
libipsec)
	for s in $suites; do ctl a --initiate --ike v4 --child esp-$s; done
	ctl a --initiate --ike v6 --child esp-aes128gcm16
	ctl a --rekey --child esp-aes256-sha512; sleep 0.5
	ctl b --rekey --ike v6 --child esp-all; sleep 0.5 ;;
netlink)
	for c in esp-transport ah-transport ah-tunnel esp-tunnel; do ctl a --initiate --ike v4 --child $c --timeout 10; done
	ctl a --initiate --ike v6 --child esp-transport --timeout 10 ;;
esac
stop
for n in a b; do grep -v '\[\(DMN\|JOB\|LIB\)' $n.log > charon-$what-$n.log; rm $n.log $n.conf $n.swanctl; done
