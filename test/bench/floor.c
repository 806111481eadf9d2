// The floor: what the kernel alone takes for a frame from one veth to another, by each way of receiving and
// of sending. Whatever a program does for a frame comes on top. See docs/performance.md.
//
//	cc -O2 -o floor test/bench/floor.c && sudo ./floor 60
//
// prints for each way the nanoseconds of the processor for a frame: median (quartiles) of so many rounds, of
// 64 and of 1400 bytes of payload, as `tapsec bench --only attached` has them. A round sends 1408 frames into
// one veth from core 1, and then core 0 moves them to another; the ways alternate in random order. It wants
// root, two cores, iproute2 and Linux 5.11, and makes a network namespace that ends with it.
//
//	in   none       sends 256 frames that stay in the cache
//	     ring       TPACKET_V2
//	     xdp        AF_XDP
//	out  none       gives what came back
//	     sendmmsg
//	     bypass     the same past the queueing discipline
//	     tx-ring    TPACKET_V2, of which the kernel copies the Ethernet header, and a veth the rest
//	     tx-copied  the same with a virtio header that has the kernel copy all at once
//	     xdp        AF_XDP, with a copy into a chunk
//	     slot       AF_XDP, from where the frame was received
//	to   veth       whose other end drops what it gets, in the same call
//	     bridge     which has no ports, and drops it itself: no veth_xmit, and no softirq at the other end
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/if_xdp.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { FRAMES = 1408, LEAD = 192, SLOT = 2048, SLOTS = 8192, SENDING = 1024, TRANSMIT = 256, BATCH = 64, BURST = 32, DISTINCT = 256, MOST = 1000 };
enum in { NO_IN, RING, XDP };
enum out { NO_OUT, SENDMMSG, BYPASS, TX_RING, TX_COPIED, CHUNK, IN_SLOT };
static const char *ins[] = {"none", "ring", "xdp"};
static const char *outs[] = {"none", "sendmmsg", "bypass", "tx-ring", "tx-copied", "xdp", "slot"};

// xring is one ring of AF_XDP.
struct xring {
	uint32_t *producer, *consumer, mask;
	void *entries;
};

struct way {
	enum in in;
	enum out out;
	const char *to;

	char from[16], into[16], other[16];
	uint8_t *ring, *memory, *sending; // received frames; chunks; a transmit ring
	int receiver, sender;
	uint32_t at, sent, free;
	uint64_t chunks[SENDING];
	struct xring fill, received, completed, transmit;
	double ns[2][MOST];
};

static struct way ways[] = {
	{RING, NO_OUT, "veth"}, {NO_IN, SENDMMSG, "bridge"}, {NO_IN, SENDMMSG, "veth"}, {NO_IN, TX_COPIED, "bridge"}, {NO_IN, TX_COPIED, "veth"}, {NO_IN, CHUNK, "bridge"}, {NO_IN, CHUNK, "veth"},
	{RING, SENDMMSG, "veth"}, {RING, BYPASS, "veth"}, {RING, TX_RING, "veth"}, {RING, TX_COPIED, "veth"}, {RING, CHUNK, "veth"},
	{RING, IN_SLOT, "veth"}, {XDP, SENDMMSG, "veth"}, {XDP, CHUNK, "veth"}, {XDP, IN_SLOT, "veth"},
};
enum { WAYS = sizeof ways / sizeof *ways };

static uint8_t frames[DISTINCT][SLOT];
static int size, source;

static void want(int ok, const char *what) {
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static void set(int fd, int level, int option, const void *value, int length, const char *what) {
	want(!setsockopt(fd, level, option, value, length), what);
}

static void on(int fd, int option) { set(fd, SOL_PACKET, option, &(int){1}, sizeof(int), "packet option"); }

static void sh(const char *form, const char *a, const char *b) {
	char command[300];
	snprintf(command, sizeof command, form, a, b);
	want(!system(command), command);
}

static void pin(int core) {
	cpu_set_t cores;
	CPU_ZERO(&cores);
	CPU_SET(core, &cores);
	want(!sched_setaffinity(0, sizeof cores, &cores), "stay on a core");
}

static double cpu(void) {
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

// sentBy is how many frames an interface has sent.
static long sentBy(const char *name) {
	char line[400], who[32];
	long n, found = -1;
	FILE *f = fopen("/proc/thread-self/net/dev", "r");
	want(!!f, "net/dev");
	while (fgets(line, sizeof line, f))
		if (sscanf(line, " %31[^:]: %*d %*d %*d %*d %*d %*d %*d %*d %*d %ld", who, &n) == 2 && !strcmp(who, name))
			found = n;
	fclose(f);
	return found;
}

static void bindPacket(int fd, const char *name, int protocol) {
	struct sockaddr_ll a = {.sll_family = AF_PACKET, .sll_protocol = htons(protocol), .sll_ifindex = if_nametoindex(name)};
	want(!bind(fd, (void *)&a, sizeof a), "bind a packet socket");
}

static int open_(int family) {
	int fd = socket(family, SOCK_RAW, 0);
	want(fd >= 0, "socket");
	return fd;
}

// packetRing gives a packet socket a ring of slots.
static uint8_t *packetRing(int fd, int option, int slots) {
	struct tpacket_req r = {.tp_block_size = 1 << 16, .tp_block_nr = slots * SLOT >> 16, .tp_frame_size = SLOT, .tp_frame_nr = slots};
	set(fd, SOL_PACKET, PACKET_VERSION, &(int){TPACKET_V2}, sizeof(int), "TPACKET_V2");
	set(fd, SOL_PACKET, option, &r, sizeof r, "packet ring");
	uint8_t *at = mmap(0, slots * SLOT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	want(at != MAP_FAILED, "map a packet ring");
	return at;
}

static struct xring xring(int fd, int option, off_t page, int entries, int each) {
	struct xdp_mmap_offsets all;
	set(fd, SOL_XDP, option, &entries, sizeof entries, "AF_XDP ring");
	want(!getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, &all, &(socklen_t){sizeof all}), "offsets of AF_XDP's rings");
	struct xdp_ring_offset *o = option == XDP_UMEM_FILL_RING ? &all.fr : option == XDP_UMEM_COMPLETION_RING ? &all.cr : option == XDP_RX_RING ? &all.rx : &all.tx;
	uint8_t *p = mmap(0, o->desc + entries * each, PROT_READ | PROT_WRITE, MAP_SHARED, fd, page);
	want(p != MAP_FAILED, "map a ring of AF_XDP");
	return (struct xring){(void *)(p + o->producer), (void *)(p + o->consumer), entries - 1, p + o->desc};
}

static struct xdp_desc *desc(struct xring *r, uint32_t i) { return (struct xdp_desc *)r->entries + (i & r->mask); }
static uint64_t *address(struct xring *r, uint32_t i) { return (uint64_t *)r->entries + (i & r->mask); }
static uint32_t load(uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static void store(uint32_t *p, uint32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

static void memoryOf(int fd, void *at, size_t length) {
	struct xdp_umem_reg u = {.addr = (uintptr_t)at, .len = length, .chunk_size = SLOT};
	set(fd, SOL_XDP, XDP_UMEM_REG, &u, sizeof u, "memory of AF_XDP");
}

static void bindXDP(int fd, const char *name, int flags, int shared) {
	struct sockaddr_xdp a = {.sxdp_family = AF_XDP, .sxdp_flags = flags, .sxdp_ifindex = if_nametoindex(name), .sxdp_shared_umem_fd = shared};
	want(!bind(fd, (void *)&a, sizeof a), "bind a socket of AF_XDP");
}

static int bpf(int command, union bpf_attr *a) {
	int fd = syscall(SYS_bpf, command, a, sizeof *a);
	want(fd >= 0, "bpf");
	return fd;
}

// redirect has a socket get what comes by the first queue of an interface.
static void redirect(int fd, const char *name) {
	int map = bpf(BPF_MAP_CREATE, &(union bpf_attr){.map_type = BPF_MAP_TYPE_XSKMAP, .key_size = 4, .value_size = 4, .max_entries = 1});
	bpf(BPF_MAP_UPDATE_ELEM, &(union bpf_attr){.map_fd = map, .key = (uintptr_t)&(int){0}, .value = (uintptr_t)&fd});
	struct bpf_insn code[] = {
		{BPF_LDX | BPF_MEM | BPF_W, 2, 1, 16, 0}, // rx_queue_index
		{BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, map}, {0},
		{BPF_ALU64 | BPF_MOV | BPF_K, 3, 0, 0, 2}, // XDP_PASS
		{BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect_map},
		{BPF_JMP | BPF_EXIT},
	};
	int program = bpf(BPF_PROG_LOAD, &(union bpf_attr){.prog_type = BPF_PROG_TYPE_XDP, .insns = (uintptr_t)code, .insn_cnt = sizeof code / sizeof *code, .license = (uintptr_t)"Apache-2.0"});
	union bpf_attr link = {.link_create = {.prog_fd = program, .target_ifindex = if_nametoindex(name), .attach_type = BPF_XDP, .flags = XDP_FLAGS_DRV_MODE}};
	bpf(BPF_LINK_CREATE, &link);
}

static void openIn(struct way *w) {
	if (w->in == RING) {
		w->receiver = open_(AF_PACKET);
		on(w->receiver, PACKET_VNET_HDR);
		on(w->receiver, PACKET_IGNORE_OUTGOING);
		w->ring = packetRing(w->receiver, PACKET_RX_RING, SLOTS);
		bindPacket(w->receiver, w->from, ETH_P_ALL);
	} else if (w->in == XDP) {
		size_t length = (SLOTS + SENDING) * SLOT;
		w->receiver = open_(AF_XDP);
		w->memory = mmap(0, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memoryOf(w->receiver, w->memory, length);
		w->fill = xring(w->receiver, XDP_UMEM_FILL_RING, XDP_UMEM_PGOFF_FILL_RING, SLOTS, 8);
		xring(w->receiver, XDP_UMEM_COMPLETION_RING, XDP_UMEM_PGOFF_COMPLETION_RING, SENDING, 8);
		w->received = xring(w->receiver, XDP_RX_RING, XDP_PGOFF_RX_RING, SLOTS, sizeof(struct xdp_desc));
		for (int i = 0; i < SLOTS; i++)
			*address(&w->fill, i) = i * SLOT;
		store(w->fill.producer, SLOTS);
		bindXDP(w->receiver, w->from, XDP_COPY, 0);
		redirect(w->receiver, w->from);
	}
}

static void openOut(struct way *w) {
	if (w->out == NO_OUT)
		return;
	if (w->out < CHUNK) {
		w->sender = open_(AF_PACKET);
		if (w->out == BYPASS)
			on(w->sender, PACKET_QDISC_BYPASS);
		if (w->out == TX_COPIED)
			on(w->sender, PACKET_VNET_HDR);
		if (w->out == TX_RING || w->out == TX_COPIED)
			w->sending = packetRing(w->sender, PACKET_TX_RING, TRANSMIT);
		bindPacket(w->sender, w->into, 0);
		return;
	}
	w->sender = open_(AF_XDP);
	int shares = w->in == XDP && w->out == IN_SLOT;
	if (w->out == CHUNK) {
		w->sending = mmap(0, SENDING * SLOT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memoryOf(w->sender, w->sending, SENDING * SLOT);
		for (; w->free < SENDING; w->free++)
			w->chunks[w->free] = w->free * SLOT;
	} else {
		w->sending = w->in == RING ? w->ring : w->memory;
		if (!shares)
			memoryOf(w->sender, w->ring, SLOTS * SLOT);
	}
	xring(w->sender, XDP_UMEM_FILL_RING, XDP_UMEM_PGOFF_FILL_RING, 1, 8);
	w->completed = xring(w->sender, XDP_UMEM_COMPLETION_RING, XDP_UMEM_PGOFF_COMPLETION_RING, SENDING, 8);
	w->transmit = xring(w->sender, XDP_TX_RING, XDP_PGOFF_TX_RING, SENDING, sizeof(struct xdp_desc));
	bindXDP(w->sender, w->into, shares ? XDP_SHARED_UMEM : XDP_COPY, w->receiver);
}

static struct tpacket2_hdr *slot(uint8_t *ring, int slots, uint32_t i) { return (void *)(ring + (size_t)(i % slots) * SLOT); }

// take finds up to n frames.
static int take(struct way *w, int n, uint8_t **f, int *length) {
	int got = 0;
	for (; w->in == NO_IN && got < n; got++)
		f[got] = frames[(w->at + got) % DISTINCT], length[got] = size;
	for (; w->in == RING && got < n; got++) {
		struct tpacket2_hdr *h = slot(w->ring, SLOTS, w->at + got);
		if (!(load(&h->tp_status) & TP_STATUS_USER))
			break;
		f[got] = (uint8_t *)h + h->tp_mac, length[got] = h->tp_len;
	}
	for (uint32_t ready = w->in == XDP ? load(w->received.producer) - w->at : 0; got < n && got < (int)ready; got++) {
		struct xdp_desc *d = desc(&w->received, w->at + got);
		f[got] = w->memory + d->addr, length[got] = d->len;
	}
	return got;
}

// give lets the kernel have n of them back.
static void give(struct way *w, int n) {
	for (int i = 0; w->in == RING && i < n; i++)
		store(&slot(w->ring, SLOTS, w->at + i)->tp_status, TP_STATUS_KERNEL);
	for (int i = 0; w->in == XDP && i < n; i++)
		*address(&w->fill, *w->fill.producer + i) = desc(&w->received, w->at + i)->addr & ~(uint64_t)(SLOT - 1);
	w->at += n;
	if (w->in == XDP) {
		store(w->received.consumer, w->at);
		store(w->fill.producer, *w->fill.producer + n);
	}
}

static void byMessages(int fd, int n, uint8_t **f, int *length) {
	static struct mmsghdr m[BATCH];
	static struct iovec v[BATCH];
	for (int i = 0; i < n; i++) {
		v[i] = (struct iovec){f[i], length[i]};
		m[i].msg_hdr.msg_iov = &v[i], m[i].msg_hdr.msg_iovlen = 1;
	}
	for (int i = 0, some; i < n; i += some)
		want((some = sendmmsg(fd, m + i, n - i, 0)) > 0, "sendmmsg");
}

static void byRing(struct way *w, int n, uint8_t **f, int *length) {
	for (int i = 0; i < n; i++) {
		struct tpacket2_hdr *h = slot(w->sending, TRANSMIT, w->sent++);
		uint8_t *at = (uint8_t *)h + TPACKET2_HDRLEN - sizeof(struct sockaddr_ll);
		h->tp_len = length[i];
		if (w->out == TX_COPIED) { // as much as the virtio header calls headers
			*(struct virtio_net_hdr *)at = (struct virtio_net_hdr){.hdr_len = length[i]};
			at += sizeof(struct virtio_net_hdr), h->tp_len += sizeof(struct virtio_net_hdr);
		}
		memcpy(at, f[i], length[i]);
		store(&h->tp_status, TP_STATUS_SEND_REQUEST);
	}
	want(sendto(w->sender, 0, 0, MSG_DONTWAIT, 0, 0) >= 0, "send a ring");
}

static void byXDP(struct way *w, int n, uint8_t **f, int *length) {
	uint32_t done = load(w->completed.producer);
	for (uint32_t i = *w->completed.consumer; w->out == CHUNK && i != done; i++)
		w->chunks[w->free++] = *address(&w->completed, i);
	store(w->completed.consumer, done);
	for (int i = 0; i < n;) {
		for (int end = i + BURST < n ? i + BURST : n; i < end; i++) {
			uint64_t at = f[i] - w->sending;
			if (w->out == CHUNK)
				memcpy(w->sending + (at = w->chunks[--w->free]), f[i], length[i]);
			*desc(&w->transmit, w->sent++) = (struct xdp_desc){.addr = at, .len = length[i]};
		}
		store(w->transmit.producer, w->sent);
		while (load(w->transmit.consumer) != w->sent)
			want(sendto(w->sender, 0, 0, MSG_DONTWAIT, 0, 0) >= 0 || errno == EAGAIN, "send by AF_XDP");
	}
}

static void send_(struct way *w, int n, uint8_t **f, int *length) {
	if (w->out == SENDMMSG || w->out == BYPASS)
		byMessages(w->sender, n, f, length);
	else if (w->out == TX_RING || w->out == TX_COPIED)
		byRing(w, n, f, length);
	else if (w->out != NO_OUT)
		byXDP(w, n, f, length);
}

// fill sends a round's frames from core 1.
static void *fill(void *unused) {
	uint8_t *f[BURST];
	int length[BURST];
	pin(1);
	for (int i = 0; i < FRAMES; i += BURST) {
		for (int j = 0; j < BURST; j++)
			f[j] = frames[(i + j) % DISTINCT], length[j] = size;
		byMessages(source, BURST, f, length);
	}
	return unused;
}

static double round_(struct way *w) {
	uint8_t *f[BATCH];
	int length[BATCH], some;
	while (w->in != NO_IN && (some = take(w, BATCH, f, length)))
		give(w, some); // what the stack sent
	if (w->in != NO_IN) {
		pthread_t t;
		source = open_(AF_PACKET);
		bindPacket(source, w->other, 0);
		on(source, PACKET_QDISC_BYPASS);
		want(!pthread_create(&t, 0, fill, 0) && !pthread_join(t, 0), "thread");
		close(source);
	}
	long before = sentBy(w->into);
	double begin = 0;
	int from = 0;
	for (int moved = 0; moved < FRAMES; moved += some) {
		some = take(w, FRAMES - moved < BATCH ? FRAMES - moved : BATCH, f, length);
		want(some > 0, "a frame is missing");
		if (!begin && moved >= LEAD)
			from = moved, begin = cpu();
		send_(w, some, f, length);
		give(w, some);
	}
	double took = (cpu() - begin) / (FRAMES - from);
	want(w->out == NO_OUT || sentBy(w->into) - before == FRAMES, "not every frame was sent");
	return took;
}

static int ascending(const void *a, const void *b) {
	double x = *(double *)a, y = *(double *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv) {
	int rounds = argc > 1 ? atoi(argv[1]) : 60;
	want(rounds > 0 && rounds <= MOST, "give 1 to 1000 rounds");
	want(!unshare(CLONE_NEWNET), "a network namespace: run as root");
	sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1", "", "");
	for (int i = 0; i < DISTINCT; i++) {
		memset(frames[i], i, SLOT);
		memcpy(frames[i], "\2\0\0\0\0\1\2\0\0\0\0\2\x08\0\x45", 15);
	}
	for (int i = 0; i < WAYS; i++) {
		struct way *w = &ways[i];
		snprintf(w->from, sizeof w->from, "from%d", i);
		snprintf(w->other, sizeof w->other, "other%d", i);
		snprintf(w->into, sizeof w->into, "into%d", i);
		sh("ip link add %s up mtu 1600 type veth peer name %s mtu 1600", w->from, w->other);
		if (!strcmp(w->to, "veth"))
			sh("ip link add %s up mtu 1600 type veth peer name sink-%s mtu 1600", w->into, w->into), sh("ip link set %s up; ip link set sink-%s up", w->other, w->into);
		else
			sh("ip link add %s up mtu 1600 type %s", w->into, w->to);
	}
	sleep(1); // until Linux has started them all
	for (int i = 0; i < WAYS; i++) {
		openIn(&ways[i]);
		openOut(&ways[i]);
	}
	pin(0);
	for (int r = -1; r < rounds; r++) // the first warms up
		for (int s = 0; s < 2; s++) {
			int order[WAYS];
			for (int i = 0; i < WAYS; i++) {
				int j = rand() % (i + 1);
				order[i] = order[j], order[j] = i;
			}
			size = s ? 1458 : 122; // with Ethernet, IP, ESP, IV, pad and ICV
			for (int i = 0; i < WAYS; i++)
				ways[order[i]].ns[s][r < 0 ? 0 : r] = round_(&ways[order[i]]);
		}
	printf("in    out        to      ns: 64 B            1400 B\n");
	for (int i = 0; i < WAYS; i++) {
		struct way *w = &ways[i];
		printf("%-5s %-10s %-6s", ins[w->in], outs[w->out], w->to);
		for (int s = 0; s < 2; s++) {
			qsort(w->ns[s], rounds, sizeof(double), ascending);
			printf("  %5.0f (%.0f-%.0f)", w->ns[s][rounds / 2], w->ns[s][rounds / 4], w->ns[s][rounds * 3 / 4]);
		}
		printf("\n");
	}
}
