#!/bin/sh
# Records what `ip xfrm state` prints for every algorithm and mode. It is the
# init of a user-mode Linux (Debian: user-mode-linux, kmod, iproute2), whose
# ESP is the real one; the files come out on the console, between marks:
#
#   linux.uml mem=256M rootfstype=hostfs root=/dev/root rootflags=/ ro \
#     init=$PWD/record.sh con=null con0=fd:0,fd:1 ssl=null quiet </dev/null |
#     tr -d '\r' | awk '/^=== end/{f=""} /^=== file/{f=$3; next} f{print > f}'
#
# Keys are patterns made for this and protect nothing.
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp /run
mkdir -p /run/m/lib/modules && ln -s /usr/lib/uml/modules/$(uname -r) /run/m/lib/modules/$(uname -r)
modprobe -d /run/m -a xfrm_user xfrm_algo af_key esp4 ah4 ipv6 esp6 ah6 xfrm4_tunnel xfrm6_tunnel \
	xfrm_ipcomp ipcomp gcm ccm ctr seqiv echainiv cbc hmac authenc authencesn sha512_generic md5 des_generic \
	chacha20poly1305 chacha_generic poly1305_generic cmac xcbc ghash-generic crypto_null ecb drbg deflate veth 2>/dev/null
echo > /proc/sys/kernel/modprobe
ip link set lo up

key() { printf 0x; i=0; while [ $i -lt $1 ]; do printf %02x $(( (i + ${2:-16}) & 255 )); i=$((i + 1)); done; }
n=0
# add FROM-TO-and-what-else, with an SPI of its own; the algorithms in "$@"
add() {
	n=$((n + 1))
	spi=$(printf 0xc0%02x%04x ${group:-0} $n)
	ip xfrm state add "$@" || echo "refused: $*" >&2
}
esp() { add src 192.0.2.1 dst 192.0.2.2 proto esp spi $spi mode ${mode:-transport} "$@"; }
next() { spi=$(printf 0xc0%02x%04x ${group:-0} $((n + 1))); }
file() { echo "=== file $1"; shift; "$@"; echo "=== end"; ip xfrm state flush; n=0; }

group=1 # every AEAD and every one-key form
for k in 16 24 32; do
	for icv in 64 96 128; do
		next; esp reqid 1 aead 'rfc4106(gcm(aes))' $(key $((k + 4))) $icv
		next; esp reqid 1 aead 'rfc4309(ccm(aes))' $(key $((k + 3))) $icv
	done
	next; esp aead 'rfc4543(gcm(aes))' $(key $((k + 4))) 128
done
next; esp aead 'rfc7539esp(chacha20,poly1305)' $(key 36) 128
file aead.txt ip xfrm state

group=2 # ciphers and integrity algorithms apart
for k in 16 24 32; do
	next; esp enc 'cbc(aes)' $(key $k) auth 'hmac(sha1)' $(key 20 64)
	next; esp enc 'rfc3686(ctr(aes))' $(key $((k + 4))) auth-trunc 'hmac(sha256)' $(key 32 64) 128
done
next; esp enc 'cbc(des3_ede)' $(key 24) auth 'hmac(md5)' $(key 16 64)
next; esp enc 'cbc(des)' $(key 8) auth 'hmac(md5)' $(key 16 64)
next; esp enc 'ecb(cipher_null)' '' auth-trunc 'hmac(sha256)' $(key 32 64) 128
next; esp enc 'cipher_null' '' auth 'hmac(sha256)' $(key 32 64)
next; esp enc 'cbc(aes)' $(key 16) auth-trunc 'hmac(sha256)' $(key 32 64) 96
next; esp enc 'cbc(aes)' $(key 16) auth-trunc 'hmac(sha384)' $(key 48 64) 192
next; esp enc 'cbc(aes)' $(key 16) auth-trunc 'hmac(sha512)' $(key 64 64) 256
next; esp enc 'cbc(aes)' $(key 16) auth-trunc 'xcbc(aes)' $(key 16 64) 96
next; esp enc 'cbc(aes)' $(key 16) auth-trunc 'cmac(aes)' $(key 16 64) 96
next; esp enc 'cbc(aes)' $(key 16)
next; esp enc 'cbc(aes)' $(key 16) auth-trunc 'hmac(sha256)' $(key 32 64) 64
file composed.txt ip xfrm state

group=3 # AH, and AH over ESP as Linux has it
for a in 'hmac(md5) 16 96' 'hmac(sha1) 20 96' 'hmac(sha256) 32 128' 'hmac(sha256) 32 96' 'hmac(sha384) 48 192' 'hmac(sha512) 64 256' 'xcbc(aes) 16 96' 'cmac(aes) 16 96'; do
	set -- $a
	next; add src 192.0.2.1 dst 192.0.2.2 proto ah spi $spi mode transport auth-trunc "$1" $(key $2) $3
done
next; add src 2001:db8::1 dst 2001:db8::2 proto ah spi $spi mode tunnel auth-trunc 'hmac(sha256)' $(key 32) 128
next; add src 192.0.2.1 dst 192.0.2.2 proto ah spi $spi reqid 7 mode transport auth 'hmac(sha256)' $(key 32)
next; esp reqid 7 aead 'rfc4106(gcm(aes))' $(key 20) 128
file ah.txt ip xfrm state

group=4 # everything that may stand around the algorithms
gcm="aead rfc4106(gcm(aes)) $(key 20) 128"
next; mode=tunnel esp reqid 1 replay-window 32 $gcm
next; add src 2001:db8::1 dst 2001:db8::2 proto esp spi $spi mode tunnel flag af-unspec replay-window 64 $gcm
next; add src 192.0.2.1 dst 192.0.2.2 proto esp spi $spi mode transport replay-window 64 flag esn $gcm sel src 192.0.2.1/32 dst 192.0.2.2/32 proto tcp dport 443
next; esp replay-window 128 flag esn replay-seq 0xfffffff0 replay-seq-hi 3 replay-oseq 0x10 replay-oseq-hi 1 $gcm
next; esp replay-window 32 replay-seq 0x1234 replay-oseq 0x56 $gcm
next; mode=tunnel esp encap espinudp 4500 4500 0.0.0.0 $gcm
next; esp encap espinudp 32768 4500 198.51.100.7 $gcm
next; add src 2001:db8::1 dst 2001:db8::2 proto esp spi $spi mode transport encap espinudp 4500 4500 :: $gcm
next; esp encap espinudp-nonike 4500 4500 0.0.0.0 $gcm
next; esp encap espinudp 10000 10000 0.0.0.0 $gcm
next; esp mark 0x10 mask 0xff output-mark 0x20 mask 0xff if_id 0x7 $gcm
next; mode=tunnel esp flag noecn flag decap-dscp extra-flag dont-encap-dscp tfcpad 64 limit byte-hard 1000000 limit packet-soft 100 $gcm
next; mode=beet esp $gcm
next; add src 192.0.2.1 dst 192.0.2.2 proto comp spi 0x1001 mode transport comp deflate
next; add src 0.0.0.0 dst 192.0.2.2 proto esp spi $spi mode tunnel $gcm
ip -6 xfrm state add src 2001:db8::1 dst 2001:db8::2 proto esp spi 0xc0049999 mode tunnel replay-window 2048 flag esn $gcm
ip xfrm state > /run/plain; ip -s xfrm state > /run/stats; ip -d xfrm state > /run/details
ip -s -s xfrm state list > /run/stats2
file modes.txt cat /run/plain
file modes-statistics.txt cat /run/stats
cmp -s /run/stats /run/stats2 || file modes-statistics2.txt cat /run/stats2
cmp -s /run/plain /run/details || file modes-details.txt cat /run/details

group=5 # used: lastused, statistics and numbers of both ends of a conversation
unshare -n sleep 30 & peer=$!
sleep 0.3
ip link add left type veth peer name right netns $peer
there="nsenter -n -t $peer"
ip addr add 192.0.2.1/24 dev left; ip link set left up
$there ip addr add 192.0.2.2/24 dev right; $there ip link set right up
for side in "" "$there"; do
	n=0
	$side ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0xc0050001 mode transport replay-window 64 flag esn replay-oseq 0xfffffffd replay-oseq-hi 1 replay-seq 0xfffffffd replay-seq-hi 1 $gcm
	$side ip xfrm state add src 192.0.2.2 dst 192.0.2.1 proto esp spi 0xc0050002 mode transport replay-window 32 $gcm
done
ip xfrm policy add src 192.0.2.1 dst 192.0.2.2 dir out tmpl proto esp mode transport
$there ip xfrm policy add src 192.0.2.2 dst 192.0.2.1 dir out tmpl proto esp mode transport
ping -c 5 -i 0.2 192.0.2.2 > /dev/null 2>&1
ip xfrm state > /run/sender; $there ip -s xfrm state > /run/receiver
kill $peer
ip xfrm policy flush
file used-sender.txt cat /run/sender
file used-receiver.txt cat /run/receiver
# keys hidden
group=6
next; esp $gcm
ip xfrm state list nokeys > /run/nokeys
file nokeys.txt cat /run/nokeys
echo "=== done"
poweroff -f 2>/dev/null || halt -f
