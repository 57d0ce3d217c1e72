#include "daemon/sandbox_rules.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/util/cleanup.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

#define BINARY_TREE 2			/* of libseccomp, instead of a chain */
#define PROGRAM_MAX 4096		/* BPF_MAXINSNS of the kernel */

/* Roles of a row. */
enum {
	DIAL = 1 << SANDBOX_DIAL,
	TALK = 1 << SANDBOX_NEGOTIATE,
	MOVE = 1 << SANDBOX_RELAY,
	NAME = 1 << SANDBOX_RESOLVE,
	KEYS = 1 << SANDBOX_READ,
	ROOT = 1 << SANDBOX_ERRAND,
	PATH = 1 << SANDBOX_REACH,
	HOLD = 1 << SANDBOX_DISPOSE,
	PEER = DIAL | TALK,
	LOOK = NAME | KEYS | ROOT,
	ALL = PEER | LOOK | PATH,
};

/* An argument, counted from 1, must equal VALUE in the bits of MASK.  The kernel reads only
 * 32 bits of most arguments; what stands above them is chance. */
struct rule_arg {
	unsigned place;			/* 0: none */
	uint32_t mask, value;
};

/* NAME is allowed to ROLES when every argument is as said; several rows for a name are
 * alternatives. */
struct rule {
	const char *name;
	unsigned roles;
	struct rule_arg args[2];
};

#define IS(place, value)	{ place, UINT32_MAX, value }
#define WITHOUT(place, bits)	{ place, bits, 0 }

static const struct rule rules[] = {
	/* messages on descriptors that are there */
	{ "read", ALL }, { "readv", ALL }, { "write", ALL }, { "writev", ALL | MOVE | HOLD },
	{ "recvfrom", PEER | MOVE | NAME }, { "recvmsg", PEER | MOVE | NAME },
	{ "recv", PEER | MOVE | NAME }, { "sendto", PEER | MOVE | NAME },
	/* Not for MOVE: descriptors on their way that nobody takes keep all processes of the
	 * user from sending any (unix(7), ETOOMANYREFS), and a relay lives long. */
	{ "sendmsg", ALL }, { "send", PEER | MOVE | NAME },
	{ "poll", ALL | MOVE | HOLD }, { "ppoll", ALL | MOVE | HOLD },
	{ "ppoll_time64", ALL | MOVE | HOLD },
	{ "close", ALL }, { "shutdown", PEER | MOVE | NAME },
	{ "getsockopt", PEER | NAME }, { "getsockname", PEER | NAME },
	{ "getpeername", PEER | NAME },
	{ "fcntl", ALL, { IS(2, F_GETFL) } }, { "fcntl", ALL, { IS(2, F_SETFL) } },
	{ "fcntl", ALL, { IS(2, F_GETFD) } }, { "fcntl", ALL, { IS(2, F_SETFD) } },
	{ "fcntl", ALL, { IS(2, F_DUPFD_CLOEXEC) } },
	{ "fcntl64", ALL, { IS(2, F_GETFL) } }, { "fcntl64", ALL, { IS(2, F_SETFL) } },
	{ "fcntl64", ALL, { IS(2, F_GETFD) } }, { "fcntl64", ALL, { IS(2, F_SETFD) } },
	{ "fcntl64", ALL, { IS(2, F_DUPFD_CLOEXEC) } },
	{ "ioctl", PEER | NAME, { IS(2, FIONBIO) } },
	{ "ioctl", PEER | NAME, { IS(2, FIONREAD) } },

	/* what a connection to a server is set to */
	{ "setsockopt", PEER, { IS(2, IPPROTO_TCP), IS(3, TCP_NODELAY) } },
	{ "setsockopt", PEER, { IS(2, IPPROTO_TCP), IS(3, TCP_ULP) } },
	{ "setsockopt", PEER, { IS(2, SOL_TLS), IS(3, TLS_TX) } },
	{ "setsockopt", PEER, { IS(2, SOL_TLS), IS(3, TLS_RX) } },
	{ "setsockopt", NAME },

	/* memory, none of it to be run */
	{ "brk", ALL }, { "munmap", ALL }, { "mremap", ALL }, { "madvise", ALL },
	{ "mmap", PEER | KEYS | ROOT,
	  { WITHOUT(3, PROT_EXEC), { 4, MAP_ANONYMOUS, MAP_ANONYMOUS } } },
	{ "mmap2", PEER | KEYS | ROOT,
	  { WITHOUT(3, PROT_EXEC), { 4, MAP_ANONYMOUS, MAP_ANONYMOUS } } },
	{ "mprotect", PEER | KEYS | ROOT, { WITHOUT(3, PROT_EXEC) } },
	{ "mmap", NAME }, { "mmap2", NAME }, { "mprotect", NAME },	/* NSS modules */

	/* time, chance, who we are, the end */
	{ "clock_gettime", ALL | MOVE }, { "clock_gettime64", ALL | MOVE }, { "gettimeofday", ALL },
	{ "time", ALL }, { "clock_nanosleep", ALL }, { "clock_nanosleep_time64", ALL },
	{ "nanosleep", ALL }, { "getrandom", ALL }, { "getpid", ALL }, { "gettid", ALL },
	{ "futex", ALL }, { "futex_time64", ALL }, { "sched_yield", ALL },
	{ "rt_sigprocmask", ALL }, { "rt_sigreturn", ALL | MOVE },
	{ "sigreturn", ALL | MOVE }, { "restart_syscall", ALL | MOVE },
	{ "exit", ALL | MOVE }, { "exit_group", ALL | MOVE },

	/* dialling, and the way on */
	{ "socket", DIAL, { IS(1, AF_INET), { 2, 0xf, SOCK_STREAM } } },
	{ "socket", DIAL, { IS(1, AF_INET6), { 2, 0xf, SOCK_STREAM } } },
	{ "socket", PATH, { IS(1, AF_UNIX), { 2, 0xf, SOCK_STREAM } } },
	{ "connect", DIAL | NAME | PATH },
	{ "seccomp", DIAL, { IS(1, 1 /* SECCOMP_SET_MODE_FILTER */) } },
	{ "prctl", PEER, { IS(1, PR_SET_NAME) } },

	/* name service: files to read, sockets, no more */
	{ "open", NAME | KEYS, { WITHOUT(2, O_ACCMODE | O_CREAT | O_TRUNC) } },
	{ "openat", NAME | KEYS, { WITHOUT(3, O_ACCMODE | O_CREAT | O_TRUNC) } },
	{ "socket", NAME }, { "bind", NAME }, { "sendmmsg", NAME }, { "recvmmsg", NAME },
	{ "recvmmsg_time64", NAME }, { "socketpair", NAME }, { "pipe2", NAME },
	{ "select", NAME }, { "pselect6", NAME }, { "epoll_create1", NAME },
	{ "epoll_ctl", NAME }, { "epoll_wait", NAME }, { "epoll_pwait", NAME },
	{ "timerfd_create", NAME }, { "timerfd_settime", NAME }, { "eventfd2", NAME },
	{ "access", LOOK }, { "faccessat", LOOK }, { "faccessat2", LOOK }, { "uname", NAME },
	{ "getuid", LOOK }, { "geteuid", LOOK }, { "getgid", LOOK }, { "getegid", LOOK },
	{ "getppid", NAME }, { "sysinfo", NAME }, { "sched_getaffinity", NAME },
	{ "rt_sigaction", NAME }, { "fadvise64", NAME }, { "dup", NAME }, { "getcwd", NAME },
	{ "prlimit64", LOOK, { IS(1, 0), IS(3, 0) } },

	/* an errand's device, and files */
	{ "openat", ROOT, { WITHOUT(3, O_CREAT | O_TRUNC) } },
	{ "fsync", ROOT },
	{ "lseek", LOOK }, { "_llseek", LOOK }, { "pread64", LOOK },
	{ "fstat", LOOK }, { "fstat64", LOOK }, { "stat", LOOK },
	{ "lstat", LOOK }, { "statx", LOOK }, { "newfstatat", LOOK },
	{ "fstatat64", LOOK }, { "readlink", NAME | KEYS },
	{ "readlinkat", NAME | KEYS }, { "getdents64", NAME | KEYS },
	{ "statfs", NAME | KEYS }, { "fstatfs", NAME | KEYS },
};

static const enum sandbox_otherwise otherwise[SANDBOX_ROLES] = {
	[SANDBOX_DIAL] = OTHERWISE_KILL,
	[SANDBOX_NEGOTIATE] = OTHERWISE_KILL,
	[SANDBOX_RELAY] = OTHERWISE_KILL,
	[SANDBOX_RESOLVE] = OTHERWISE_ENOSYS,
	[SANDBOX_READ] = OTHERWISE_ENOSYS,
	[SANDBOX_ERRAND] = OTHERWISE_ENOSYS,
	[SANDBOX_REACH] = OTHERWISE_ENOSYS,
	[SANDBOX_DISPOSE] = OTHERWISE_KILL,
};

/* What nbdd never does once it runs, nor any child of it. */
static const char *const never[] = {
	"execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev",
	"process_madvise", "kcmp", "pidfd_getfd",
	"mount", "umount", "umount2", "pivot_root", "open_tree", "move_mount", "fsopen",
	"fsconfig", "fsmount", "fspick", "mount_setattr", "setns", "unshare",
	"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
	"reboot", "swapon", "swapoff", "bpf", "perf_event_open", "userfaultfd",
	"io_uring_setup", "io_uring_enter", "io_uring_register", "add_key", "request_key",
	"keyctl", "iopl", "ioperm", "modify_ldt", "personality", "acct", "quotactl",
	"quotactl_fd", "settimeofday", "clock_settime", "clock_settime64", "adjtimex",
	"clock_adjtime", "clock_adjtime64", "stime", "sethostname", "setdomainname",
	"syslog", "vhangup", "name_to_handle_at", "open_by_handle_at", "mknod", "mknodat",
	"link", "linkat", "symlink", "symlinkat", "fanotify_init", "lookup_dcookie",
	"nfsservctl", "uselib", "ustat", "sysfs", "_sysctl", "migrate_pages", "move_pages",
};

/* What makes somebody root whose real user is, as a spawner's, when one of its first arguments
 * is 0; in 16 bits, for some calls of machines with 32 bits read no more. */
static const struct {
	unsigned arguments;
	const char *name;
} becoming[] = {
	{ 1, "setuid" }, { 1, "setuid32" }, { 1, "setfsuid" }, { 1, "setfsuid32" },
	{ 2, "setreuid" }, { 2, "setreuid32" }, { 3, "setresuid" }, { 3, "setresuid32" },
};

/* i386, ppc64el and s390x have socket calls of their own, and all of them in one, `socketcall`;
 * libseccomp has numbers of its own for such names, from which it makes rules of both. */
static bool is_multiplexed(int call)
{
	return call <= __PNR_socket && call >= __PNR_sendmmsg &&
	       seccomp_syscall_resolve_name("socketcall") >= 0;
}

/* Names that this machine does not have are left out. */
static int add_rule(scmp_filter_ctx ctx, const struct rule *rule)
{
	int call = seccomp_syscall_resolve_name(rule->name);
	struct scmp_arg_cmp args[ARRAY_SIZE(rule->args)];
	unsigned n = 0;
	int r;

	if (call < 0 && !is_multiplexed(call))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(rule->args) && rule->args[i].place; i++)
		args[n++] = (struct scmp_arg_cmp){
			.arg = rule->args[i].place - 1, .op = SCMP_CMP_MASKED_EQ,
			.datum_a = rule->args[i].mask, .datum_b = rule->args[i].value };
	r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, call, n, args);
	/* Its arguments stand in memory, where no filter sees them. */
	if (r >= 0 && call < 0 && n)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socketcall), 1,
				     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)(1 + __PNR_socket - call)));
	return r;
}

/* libseccomp writes the program to a descriptor. */
static int export(scmp_filter_ctx ctx, struct sock_fprog *ret)
{
	_cleanup_close_ int fd = memfd_create("seccomp", MFD_CLOEXEC);
	_cleanup_free_ struct sock_filter *program = NULL;
	off_t size;
	int r;

	if (fd < 0)
		return -errno;
	r = seccomp_export_bpf(ctx, fd);
	if (r < 0)
		return r;
	size = lseek(fd, 0, SEEK_END);
	if (size <= 0 || size % sizeof(*program) || size / sizeof(*program) > PROGRAM_MAX)
		return -E2BIG;
	program = malloc((size_t)size);
	if (!program)
		return -ENOMEM;
	if (pread(fd, program, (size_t)size, 0) != size)
		return -EIO;
	*ret = (struct sock_fprog){ .len = (unsigned short)(size / sizeof(*program)),
				    .filter = STEAL_PTR(program) };
	return 0;
}

static void cleanup_ctx_p(scmp_filter_ctx *ctx)
{
	if (*ctx)
		seccomp_release(*ctx);
}

int sandbox_compile(enum sandbox_role role, struct sock_fprog *ret)
{
	_cleanup_(cleanup_ctx_p) scmp_filter_ctx ctx =
		seccomp_init(otherwise[role] == OTHERWISE_KILL ? SCMP_ACT_KILL_PROCESS
							       : SCMP_ACT_ERRNO(ENOSYS));
	int r;

	if (!ctx)
		return -ENOMEM;
	r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (r >= 0)
		r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, BINARY_TREE);
	for (size_t i = 0; i < ARRAY_SIZE(rules) && r >= 0; i++)
		if (rules[i].roles & 1u << role)
			r = add_rule(ctx, &rules[i]);
	return r < 0 ? r : export(ctx, ret);
}

static int refuse_root(scmp_filter_ctx ctx)
{
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(becoming); i++) {
		int call = seccomp_syscall_resolve_name(becoming[i].name);

		for (unsigned k = 0; call >= 0 && k < becoming[i].arguments && r >= 0; k++)
			r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), call, 1,
					     SCMP_CMP(k, SCMP_CMP_MASKED_EQ, 0xffff, 0));
	}
	return r;
}

int sandbox_compile_daemon(struct sock_fprog *ret)
{
	_cleanup_(cleanup_ctx_p) scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	int r = 0;

	if (!ctx)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_SIZE(never) && r >= 0; i++) {
		int call = seccomp_syscall_resolve_name(never[i]);

		if (call >= 0)
			r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), call, 0);
	}
	if (r >= 0)
		r = refuse_root(ctx);
	return r < 0 ? r : export(ctx, ret);
}
